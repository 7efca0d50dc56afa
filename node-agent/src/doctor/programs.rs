//! The programs that the agent runs: there, executable, and saying their version.

use super::{Check, chain};
use crate::config::Config;
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;

const GROUP: &str = "programs";
/// The time a program has to say its version.
const DEADLINE: Duration = Duration::from_secs(5);
/// Any of these bits makes a file executable for somebody, and so for root.
const EXECUTABLE: u32 = 0o111;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for (key, program, package) in [
        ("runtime", &config.runtime, "runc"),
        ("conmon", &config.conmon, "conmon"),
        ("init", &config.init, "catatonit"),
    ] {
        checks.push(one(key, program, package).await);
    }
    checks
}

async fn one(key: &'static str, program: &Path, package: &str) -> Check {
    let fix =
        format!("install it with `apt-get install {package}`, or set `{key}` in the configuration to where it is");
    let Some(path) = find(program, std::env::var_os("PATH").unwrap_or_default().as_os_str()) else {
        return Check::failed(GROUP, key, format!("{} is missing", program.display()), fix);
    };
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() && found.permissions().mode() & EXECUTABLE != 0 => {}
        Ok(_) => return Check::failed(GROUP, key, format!("{} is not executable", path.display()), fix),
        Err(error) => return Check::failed(GROUP, key, format!("{}: {error}", path.display()), fix),
    }
    match version(&path).await {
        Ok(version) => Check::ok(GROUP, key, format!("{} ({version})", path.display())),
        Err(problem) => Check::failed(GROUP, key, format!("{} does not run: {problem}", path.display()), fix),
    }
}

/// A name without a slash is looked up as a shell would.
fn find(program: &Path, search: &std::ffi::OsStr) -> Option<PathBuf> {
    let candidates: Vec<PathBuf> = if program.components().count() > 1 || program.is_absolute() {
        vec![program.to_owned()]
    } else {
        std::env::split_paths(search).map(|folder| folder.join(program)).collect()
    };
    candidates.into_iter().find(|path| path.exists())
}

async fn version(path: &Path) -> Result<String, String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(output) => output.map_err(|error| chain(&error))?,
        Err(_) => return Err(format!("`--version` took longer than {} s", DEADLINE.as_secs())),
    };
    if !output.status.success() {
        return Err(format!("`--version` ended with {}", output.status));
    }
    Ok(first_line(&String::from_utf8_lossy(&output.stdout)))
}

/// The first line, without anything that a terminal would obey.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn names_are_looked_up_and_paths_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tool"), "").unwrap();
        let search = folder.path().as_os_str();
        assert_eq!(find(Path::new("tool"), search), Some(folder.path().join("tool")));
        assert_eq!(find(Path::new("other"), search), None);
        assert_eq!(find(&folder.path().join("none"), search), None);
    }

    #[test]
    fn only_the_first_line_of_a_version_is_shown() {
        assert_eq!(first_line("runc version 1.1.5\u{1b}[2J\ncommit: x"), "runc version 1.1.5[2J");
        assert_eq!(first_line(""), "");
    }

    #[tokio::test]
    async fn missing_not_executable_and_failing_programs_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");
        let found = async |mode: u32| {
            if mode > 0 {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            one("runtime", &path, "runc").await
        };
        let missing = found(0).await;
        assert!(missing.found.contains("is missing") && missing.fix.unwrap().contains("apt-get install runc"));
        std::fs::write(&path, "#!/bin/sh\nexit 3\n").unwrap();
        assert!(found(0o644).await.found.contains("is not executable"));
        let failing = found(0o755).await;
        assert!(failing.status == Status::Failed && failing.found.contains("exit status: 3"), "{failing:?}");
    }
}
