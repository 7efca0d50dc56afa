//! Decides what a container's first process is. Somebody must reap orphans and take signals as
//! process 1, so a command that is not an init itself gets one.

use super::{Bundle, RuntimeError, rootfs::Rootfs};
use nix::sys::signal::Signal;

/// The image's own init.
const IMAGE_INIT: &str = "/sbin/init";
/// Where the node's init program appears inside; `/dev` is a tmpfs, so the image is not touched.
pub(super) const INIT_INSIDE: &str = "/dev/.init";
/// The first real time signal as the C library counts (two are its own, `signal(7)`).
const SIGRTMIN: i32 = 34;
/// The last one.
const SIGRTMAX: i32 = 64;
/// systemd takes it as a request to halt (`systemd(1)`).
const SYSTEMD_HALT: i32 = SIGRTMIN + 3;

/// The first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FirstProcess {
    /// Its command line.
    pub(super) args: Vec<String>,
    /// True where the node's init is mounted at [`INIT_INSIDE`] and part of `args`.
    pub(super) needs_init: bool,
    /// True where it is systemd, which gets its own cgroups to manage.
    pub(super) systemd: bool,
    /// The signal that asks it to end.
    pub(super) stop_signal: i32,
}

impl FirstProcess {
    /// Looks into the root file system where the command does not say enough.
    pub(super) fn choose(bundle: &Bundle, root: &Rootfs) -> Result<Self, RuntimeError> {
        let id = bundle.id;
        if bundle.command.iter().any(|arg| arg.contains('\0')) || bundle.command.first().is_some_and(String::is_empty) {
            return Err(RuntimeError::Bundle { id, reason: "the command cannot be executed".into() });
        }
        let asked = match bundle.stop_signal.as_str() {
            "" => None,
            text => Some(
                signal_number(text)
                    .ok_or_else(|| RuntimeError::Bundle { id, reason: format!("unknown stop signal {text:?}") })?,
            ),
        };
        let program = bundle.command.first().map_or(IMAGE_INIT, String::as_str);
        let target = if program.starts_with('/') { root.executable(program)? } else { None };
        let systemd = target.as_deref() == Some("systemd");
        // A command that is the image's init by name or by what it leads to is process 1 itself.
        let own_init = target.is_some() && (systemd || program == IMAGE_INIT);
        let mut args = bundle.command.clone();
        if own_init {
            if args.is_empty() {
                args.push(IMAGE_INIT.into());
            }
        } else if args.is_empty() {
            // Waits, reaps, and ends on SIGTERM.
            args = vec![INIT_INSIDE.into(), "-P".into()];
        } else {
            args.splice(0..0, [INIT_INSIDE.into(), "--".into()]);
        }
        let default_stop = if systemd { SYSTEMD_HALT } else { libc::SIGTERM };
        Ok(Self { args, needs_init: !own_init, systemd, stop_signal: asked.unwrap_or(default_stop) })
    }
}

/// The number of a signal written as `SIGTERM`, `TERM`, `SIGRTMIN+3` or `15`.
fn signal_number(text: &str) -> Option<i32> {
    let valid = |number: i32| (1..=SIGRTMAX).contains(&number).then_some(number);
    if let Ok(number) = text.parse::<i32>() {
        return valid(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |number: i32| (SIGRTMIN..=SIGRTMAX).contains(&number).then_some(number);
    match name {
        "RTMIN" => return Some(SIGRTMIN),
        "RTMAX" => return Some(SIGRTMAX),
        _ => {}
    }
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return real_time(SIGRTMIN.checked_add(offset.parse().ok()?)?);
    }
    if let Some(offset) = name.strip_prefix("RTMAX-") {
        return real_time(SIGRTMAX.checked_sub(offset.parse().ok()?)?);
    }
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::IdRange;
    use hoody_protocol::{container::Limits, id::ContainerId};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn bundle(root: &std::path::Path, command: &[&str], stop_signal: &str) -> Bundle {
        Bundle {
            id: ContainerId::from_bytes([1; 12]),
            rootfs: root.into(),
            ids: IdRange { first: 1_000_000 },
            hostname: "h".into(),
            command: command.iter().map(|&text| text.into()).collect(),
            env: Default::default(),
            workdir: String::new(),
            user: String::new(),
            stop_signal: stop_signal.into(),
            limits: Limits {
                cpu_millis: 100,
                memory_bytes: 64 << 20,
                disk_bytes: 64 << 20,
                pids: 64,
                network_mbit: None,
            },
            dns: Vec::new(),
            kvm: false,
            shares: None,
            ramdisk: None,
        }
    }

    fn choose(folder: &tempfile::TempDir, command: &[&str], stop: &str) -> Result<FirstProcess, RuntimeError> {
        FirstProcess::choose(&bundle(folder.path(), command, stop), &Rootfs::open(folder.path()).unwrap())
    }

    fn program(folder: &tempfile::TempDir, name: &str) {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "#!").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_image_without_an_init_gets_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = choose(&folder, &[], "").unwrap();
        assert_eq!(first.args, [INIT_INSIDE, "-P"]);
        assert!(first.needs_init && !first.systemd && first.stop_signal == libc::SIGTERM);
        let first = choose(&folder, &["sleep", "5"], "SIGUSR1").unwrap();
        assert_eq!(first.args, [INIT_INSIDE, "--", "sleep", "5"]);
        assert_eq!(first.stop_signal, libc::SIGUSR1);
    }

    #[test]
    fn an_image_with_systemd_runs_it() {
        let folder = tempfile::tempdir().unwrap();
        program(&folder, "lib/systemd/systemd");
        std::fs::create_dir(folder.path().join("sbin")).unwrap();
        symlink("/lib/systemd/systemd", folder.path().join("sbin/init")).unwrap();
        for command in [&[][..], &["/sbin/init"], &["/lib/systemd/systemd"]] {
            let first = choose(&folder, command, "").unwrap();
            assert!(first.systemd && !first.needs_init, "{command:?}");
            assert_eq!(first.stop_signal, 37);
        }
        assert!(!choose(&folder, &["/bin/sh"], "").unwrap().systemd);
    }

    #[test]
    fn another_init_of_the_image_runs_without_ours() {
        let folder = tempfile::tempdir().unwrap();
        program(&folder, "sbin/init");
        let first = choose(&folder, &[], "").unwrap();
        assert_eq!(first.args, [IMAGE_INIT]);
        assert!(!first.needs_init && !first.systemd);
    }

    #[test]
    fn signals_are_read_in_every_form() {
        for (text, number) in [("SIGTERM", 15), ("TERM", 15), ("15", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)] {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for bad in ["SIGNOTHING", "0", "65", "-9", "RTMIN+31", "RTMIN+99999999999", "RTMAX-31"] {
            assert_eq!(signal_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn commands_that_cannot_be_executed_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(choose(&folder, &["a\0b"], "").is_err());
        assert!(choose(&folder, &[""], "").is_err());
    }
}
