//! The agent's folders and its pool.

use super::{Check, blocking};
use crate::{config::Config, storage::subvolume};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

const GROUP: &str = "folders";
/// Mode of folders that only root enters.
const PRIVATE: u32 = 0o700;
/// Mode of the run folder: containers' root passes through and sees nothing.
const PASSABLE: u32 = 0o711;
/// Free bytes that records, journal and logs need.
const STATE_BYTES: u64 = 1 << 30;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let config = config.clone();
    blocking(GROUP, move || {
        let mut checks = vec![
            mode("state_dir", &config.state_dir, PRIVATE),
            mode("identity", &config.identity_dir(), PRIVATE),
            mode("run_dir", &config.run_dir, PASSABLE),
        ];
        if config.state_dir.is_dir() {
            checks.push(space("state_dir space", &config.state_dir, STATE_BYTES));
        }
        checks.extend(pool(&config.pool, config.pool_reserve_bytes));
        checks
    })
    .await
}

fn mode(name: &str, path: &Path, wanted: u32) -> Check {
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok(GROUP, name, format!("{shown} is made at the first start"))
        }
        Err(error) => Check::failed(GROUP, name, format!("{shown}: {error}"), "run this as root"),
        Ok(found) if !found.is_dir() => {
            Check::failed(GROUP, name, format!("{shown} is not a folder"), format!("move {shown} away"))
        }
        Ok(found) if found.uid() != 0 => {
            let fix = format!("give it to root with `chown root: {shown}`");
            Check::failed(GROUP, name, format!("{shown} belongs to user {}", found.uid()), fix)
        }
        Ok(found) if found.mode() & 0o7777 & !wanted != 0 => {
            let fix = format!("close it with `chmod {wanted:o} {shown}`; the agent does so when it starts");
            Check::warning(GROUP, name, format!("{shown} has mode {:o}", found.mode() & 0o7777), fix)
        }
        Ok(_) => Check::ok(GROUP, name, shown.to_string()),
    }
}

fn pool(path: &Path, reserve: u64) -> Vec<Check> {
    let shown = path.display();
    let make = format!("make a btrfs with `mkfs.btrfs` and mount it at {shown} with `-o nosuid,nodev`");
    let folder = match subvolume::open_folder(path) {
        Ok(folder) => folder,
        Err(error) => return vec![Check::failed(GROUP, "pool", format!("{shown}: {error}"), make)],
    };
    match subvolume::is_btrfs(folder.as_fd()) {
        Ok(true) => {}
        Ok(false) => return vec![Check::failed(GROUP, "pool", format!("{shown} is not on btrfs"), make)],
        Err(error) => return vec![Check::failed(GROUP, "pool", format!("{shown}: {error}"), make)],
    }
    let flags = match statvfs(path) {
        Ok(found) => found.flags(),
        Err(error) => return vec![Check::failed(GROUP, "pool", format!("{shown}: {error}"), make)],
    };
    let mounted = if flags.contains(FsFlags::ST_RDONLY) {
        let fix = format!("look for btrfs errors in `dmesg`, then `mount -o remount,rw {shown}`");
        Check::failed(GROUP, "pool", format!("{shown} is mounted read-only"), fix)
    } else if !flags.contains(FsFlags::ST_NODEV | FsFlags::ST_NOSUID) {
        let fix = format!("mount it with `mount -o remount,nosuid,nodev {shown}` and put both into /etc/fstab");
        Check::warning(GROUP, "pool", format!("{shown} is mounted without nosuid and nodev"), fix)
    } else {
        Check::ok(GROUP, "pool", format!("{shown} is btrfs, nosuid and nodev"))
    };
    vec![mounted, space("pool space", path, reserve)]
}

fn space(name: &str, path: &Path, least: u64) -> Check {
    let shown = path.display();
    match statvfs(path) {
        Ok(found) => {
            let free = found.blocks_available().saturating_mul(found.fragment_size());
            let text = format!("{} MiB free", free >> 20);
            if free >= least {
                Check::ok(GROUP, name, text)
            } else {
                Check::warning(GROUP, name, text, format!("make room on {shown}: {} MiB are needed", least >> 20))
            }
        }
        Err(error) => Check::failed(GROUP, name, error.to_string(), format!("see that {shown} is mounted and answers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn folders_that_others_enter_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let with = |bits| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(bits)).unwrap();
            mode("state_dir", folder.path(), PRIVATE)
        };
        assert_eq!(with(0o700).status, Status::Ok);
        let open = with(0o755);
        assert!(open.status == Status::Warning && open.fix.unwrap().contains("chmod 700"));
        assert_eq!(mode("state_dir", &folder.path().join("none"), PRIVATE).status, Status::Ok);
    }

    #[test]
    fn a_pool_that_is_not_btrfs_is_named() {
        let checks = pool(Path::new("/proc"), 0);
        assert_eq!((checks.len(), checks[0].status), (1, Status::Failed));
        assert!(checks[0].found.contains("/proc is not on btrfs"));
        assert_eq!(space("x", Path::new("/"), u64::MAX).status, Status::Warning);
    }
}
