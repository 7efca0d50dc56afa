//! The policy for commands on the server, and the programs that it allows.

use super::{Check, chain};
use crate::{
    commands::policy::{Policy, PolicyError},
    config::Config,
};
use hoody_protocol::command::built_in;
use std::path::Path;

const GROUP: &str = "commands";
/// Programs that run whatever they are given.
const INTERPRETERS: [&str; 10] = ["sh", "bash", "dash", "zsh", "python3", "perl", "env", "busybox", "sudo", "awk"];

pub(super) fn check(config: &Config) -> Vec<Check> {
    let path = &config.commands_policy;
    let policy = match Policy::load(path) {
        Ok(policy) => policy,
        Err(PolicyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let fix = format!("copy commands.toml.example to {}, if commands are to be run here", path.display());
            return vec![Check::warning(GROUP, "policy", "there is none: every command is refused", fix)];
        }
        Err(error) => {
            let fix = format!("make {} a valid policy, of root's and writable for nobody else", path.display());
            return vec![Check::failed(GROUP, "policy", chain(&error), fix)];
        }
    };
    let found =
        format!("{} built-in commands and {} programs are allowed", policy.built_in.len(), policy.programs.len());
    let mut checks = vec![Check::ok(GROUP, "policy", found)];
    let built_in = policy.built_in.iter().filter_map(|slug| built_in::find(slug));
    let programs = built_in.filter_map(|command| Some((command.slug.to_owned(), Path::new(*command.argv.first()?))));
    for (slug, program) in programs.filter(|(_, program)| !program.exists()) {
        let fix = format!("install it, or take {slug} out of {}", path.display());
        checks.push(Check::warning(GROUP, slug, format!("{} is missing", program.display()), fix));
    }
    for program in &policy.programs {
        let name = program.display().to_string();
        let runs_anything = program.file_name().is_some_and(|name| INTERPRETERS.iter().any(|known| name == *known));
        if runs_anything {
            let fix = format!("take it out of {}: it runs whatever the control plane sends", path.display());
            checks.push(Check::warning(GROUP, name, "is an interpreter", fix));
        } else if !program.exists() {
            checks.push(Check::warning(
                GROUP,
                name,
                "is missing",
                format!("install it, or take it out of {}", path.display()),
            ));
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_policy_is_there_valid_and_names_no_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands.toml");
        let config = Config { commands_policy: path.clone(), ..Config::default() };
        let first = || check(&config).remove(0);
        assert_eq!(first().status, Status::Warning);
        fs::write(&path, "built_in = ['disk-usage']\nprograms = ['/bin/sh', '/no/such']").unwrap();
        let found: Vec<_> = check(&config).into_iter().map(|check| (check.name, check.status)).collect();
        let expected = [("policy", Status::Ok), ("/bin/sh", Status::Warning), ("/no/such", Status::Warning)];
        assert_eq!(found, expected.map(|(name, status)| (name.to_owned(), status)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(first().status, Status::Failed);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "built_in = ['no-such']").unwrap();
        assert!(first().found.contains("no-such"));
    }
}
