//! Limits of the kernel and of this process that many containers run into.

use super::Check;
use nix::sys::resource::{Resource, getrlimit};
use std::fs;

const GROUP: &str = "limits";
/// Files that the agent, conmon and the runtime hold open with a full server.
const OPEN_FILES: u64 = 4096;

/// A file below `/proc/sys`, the least value that is enough for a full server, and what runs out below it.
const SYSCTLS: [(&str, u64, &str); 9] = [
    ("user/max_user_namespaces", 1024, "a container has a user namespace"),
    ("user/max_net_namespaces", 1024, "a container has a network namespace"),
    ("user/max_mnt_namespaces", 4096, "a container has mount namespaces"),
    ("kernel/pid_max", 65_536, "processes of all containers share it"),
    ("kernel/threads-max", 8192, "threads of all containers share it"),
    ("kernel/keys/maxkeys", 200, "a container's root holds kernel keys"),
    ("kernel/keys/root_maxkeys", 10_000, "the runtime makes a session keyring for each container"),
    ("fs/inotify/max_user_instances", 512, "init programs of containers watch files"),
    ("fs/inotify/max_user_watches", 65_536, "programs in containers watch files"),
];

pub(super) fn check() -> Vec<Check> {
    let mut checks: Vec<Check> = SYSCTLS
        .iter()
        .map(|(path, least, why)| sysctl(path, *least, why, fs::read_to_string(format!("/proc/sys/{path}")).ok()))
        .collect();
    checks.push(match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) => open_files(hard),
        Err(error) => Check::warning(GROUP, "open files", error.to_string(), "look at `ulimit -Hn`"),
    });
    checks
}

fn sysctl(path: &str, least: u64, why: &str, text: Option<String>) -> Check {
    let key = path.replace('/', ".");
    let value = text.as_deref().and_then(|text| text.trim().parse::<u64>().ok());
    match value {
        None => Check::warning(GROUP, key.clone(), "not readable", format!("look at `sysctl {key}`: {why}")),
        Some(0) => Check::failed(GROUP, key.clone(), "0", format!("set `sysctl -w {key}={least}`: {why}")),
        Some(value) if value < least => {
            let fix = format!("set `sysctl -w {key}={least}` or more, also below /etc/sysctl.d: {why}");
            Check::warning(GROUP, key, format!("{value}, less than {least}"), fix)
        }
        Some(value) => Check::ok(GROUP, key, value.to_string()),
    }
}

fn open_files(hard: u64) -> Check {
    if hard >= OPEN_FILES {
        return Check::ok(GROUP, "open files", hard.to_string());
    }
    let fix = format!("raise it to {OPEN_FILES} or more, with LimitNOFILE= in the unit or `ulimit -Hn` in the shell");
    Check::warning(GROUP, "open files", format!("{hard}, less than {OPEN_FILES}"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn values_are_compared_with_what_is_needed() {
        let status = |text: Option<&str>| sysctl("user/max_x", 10, "why", text.map(str::to_owned)).status;
        assert_eq!(status(Some("10\n")), Status::Ok);
        assert_eq!(status(Some("9\n")), Status::Warning);
        assert_eq!(status(Some("0\n")), Status::Failed);
        assert_eq!(status(Some("-1\n")), Status::Warning);
        assert_eq!(status(None), Status::Warning);
        let check = sysctl("user/max_x", 10, "why", Some("9".into()));
        assert!(check.fix.unwrap().contains("sysctl -w user.max_x=10"));
        assert_eq!(open_files(OPEN_FILES - 1).status, Status::Warning);
    }
}
