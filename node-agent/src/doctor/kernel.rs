//! User namespaces, idmapped mounts and control groups.

use super::{Check, blocking, chain};
use crate::{
    config::Config,
    storage::{IdRange, mount, subvolume, user_namespace},
};
use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

const GROUP: &str = "kernel";
const MOUNTS: &str = "/proc/self/mountinfo";
/// Refused by the agent where version 1 has controllers: see `runtime::oci`.
const CRUN: &str = "crun";
/// Where the kernel names what its btrfs can do.
const BTRFS_FEATURES: &str = "/sys/fs/btrfs/features";
/// Controllers that containers are limited with, by their v1 names.
const CONTROLLERS_V1: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "freezer"];
/// The same in v2, where freezing needs none.
const CONTROLLERS_V2: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let (first_id, pool, run_dir) = (config.first_id, config.pool.clone(), config.run_dir.clone());
    let runtime = config.runtime.clone();
    blocking(GROUP, move || {
        let mut checks = namespaces(first_id, &pool, &run_dir);
        checks.push(quotas());
        checks.push(shared_ramdisks(first_id, &run_dir));
        checks.push(kvm(crate::runtime::kvm_usable()));
        checks.push(match fs::read_to_string(MOUNTS) {
            Ok(mounts) => cgroups(&mounts, &runtime, |path| fs::read_to_string(path).ok()),
            Err(error) => Check::failed(GROUP, "cgroups", format!("{MOUNTS}: {error}"), "mount /proc"),
        });
        checks
    })
    .await
}

fn namespaces(first_id: u32, pool: &Path, run_dir: &Path) -> Vec<Check> {
    let user = match user_namespace::create(IdRange { first: first_id }) {
        Ok(user) => user,
        Err(error) => {
            let fix = "run this as root, and set `sysctl -w user.max_user_namespaces=1024` where it is 0";
            return vec![Check::failed(GROUP, "user namespaces", chain(&error), fix)];
        }
    };
    let idmapped = match try_idmapped(pool, user.as_fd(), run_dir) {
        Ok(()) => Check::ok(GROUP, "idmapped mounts", "the pool can be mounted idmapped"),
        Err(error) => {
            let fix = "boot Linux 5.15 or newer, and give the pool a mounted btrfs (see below)";
            Check::failed(GROUP, "idmapped mounts", chain(&error), fix)
        }
    };
    vec![Check::ok(GROUP, "user namespaces", "one can be made"), idmapped]
}

/// Mounts the pool idmapped below a folder of its own and takes it away again.
fn try_idmapped(pool: &Path, user: std::os::fd::BorrowedFd<'_>, run_dir: &Path) -> std::io::Result<()> {
    let pool = subvolume::open_folder(pool)?;
    let target = Trial::new(run_dir)?;
    let attributes = mount::Attributes { setuid: true, readonly: false };
    mount::idmapped(pool.as_fd(), user, &target.0, attributes)
}

/// A folder to mount on; unmounted and removed when dropped.
struct Trial(PathBuf);

impl Trial {
    fn new(run_dir: &Path) -> std::io::Result<Self> {
        let parent = if run_dir.is_dir() { run_dir.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("doctor-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let gone = mount::unmount(&self.0).and_then(|()| fs::remove_dir(&self.0));
        if let Err(error) = gone {
            tracing::warn!(%error, path = %self.0.display(), "a trial mount was not removed");
        }
    }
}

/// Whether a RAM disk can be shared by the containers of a project: mounts a tmpfs, and that once more idmapped.
fn shared_ramdisks(first_id: u32, run_dir: &Path) -> Check {
    const NAME: &str = "RAM disks of projects";
    let tried = user_namespace::create(IdRange { first: first_id }).and_then(|user| {
        let (disk, target) = (Trial::new(run_dir)?, Trial::new(run_dir)?);
        nix::mount::mount(Some("doctor"), &disk.0, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k"))?;
        let source = subvolume::open_folder(&disk.0)?;
        let attributes = mount::Attributes { setuid: false, readonly: false };
        mount::idmapped(source.as_fd(), user.as_fd(), &target.0, attributes)
    });
    match tried {
        Ok(()) => Check::ok(GROUP, NAME, "a tmpfs can be mounted idmapped"),
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
            let fix = "boot Linux 6.3 or newer, or let containers have RAM disks of their own only";
            Check::warning(GROUP, NAME, "the kernel maps no owners on tmpfs: containers cannot share one", fix)
        }
        Err(error) => Check::warning(GROUP, NAME, chain(&error), "run this as root"),
    }
}

fn kvm(usable: bool) -> Check {
    let found = if usable { "containers can be given it" } else { "none: containers cannot be given it" };
    Check::ok(GROUP, "KVM", found)
}

fn quotas() -> Check {
    if Path::new(BTRFS_FEATURES).join("simple_quota").exists() {
        Check::ok(GROUP, "btrfs quotas", "simple quotas")
    } else if Path::new(BTRFS_FEATURES).exists() {
        let fix = "boot Linux 6.7 or newer: full quotas, which are used instead, cost time with many snapshots";
        Check::warning(GROUP, "btrfs quotas", "full quotas only", fix)
    } else {
        Check::failed(GROUP, "btrfs quotas", "the kernel has no btrfs", "load it with `modprobe btrfs`")
    }
}

/// Version and controllers of what is mounted, and whether the OCI runtime keeps limits with it.
fn cgroups(mounts: &str, runtime: &Path, read: impl Fn(&Path) -> Option<String>) -> Check {
    let mut v1 = Vec::new();
    let mut unified = None;
    for line in mounts.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let mut kind = kind.split(' ');
        match (kind.next(), kind.nth(1), place.split(' ').nth(4)) {
            (Some("cgroup"), Some(options), _) => v1.extend(options.split(',')),
            (Some("cgroup2"), _, Some(point)) => unified = Some(PathBuf::from(point)),
            _ => {}
        }
    }
    let v2 = unified.as_ref().and_then(|point| read(&point.join("cgroup.controllers"))).unwrap_or_default();
    let v2: Vec<&str> = v2.split_whitespace().collect();
    let missing: Vec<&str> = CONTROLLERS_V2.iter().filter(|one| !v2.contains(one)).copied().collect();
    let missing_v1: Vec<&str> = CONTROLLERS_V1.iter().filter(|one| !v1.contains(one)).copied().collect();
    if missing.is_empty() {
        Check::ok(GROUP, "cgroups", "version 2")
    } else if missing_v1.is_empty() && runtime.file_name().is_some_and(|name| name == CRUN) {
        let fix = "boot with `systemd.unified_cgroup_hierarchy=1`, or set `runtime` in the configuration to runc";
        Check::failed(GROUP, "cgroups", "version 1 controllers, with which crun keeps no limits", fix)
    } else if missing_v1.is_empty() {
        let fix = "boot with `systemd.unified_cgroup_hierarchy=1`: version 1 works, version 2 is what is meant";
        Check::warning(GROUP, "cgroups", "version 1 controllers", fix)
    } else {
        let missing = if v1.is_empty() { missing } else { missing_v1 };
        let fix = "mount cgroup2 with these controllers, or take `cgroup_disable` off the kernel's command line";
        Check::failed(GROUP, "cgroups", format!("missing controllers: {}", missing.join(", ")), fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    const V1: &str = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        32 25 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        33 25 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
    const V2: &str = "34 25 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn versions_and_missing_controllers_are_told_apart() {
        let with = |mounts: &str, controllers: &'static str| {
            cgroups(mounts, Path::new("/usr/sbin/runc"), |path| {
                assert_eq!(path, Path::new("/sys/fs/cgroup/unified/cgroup.controllers"));
                Some(controllers.to_owned())
            })
        };
        assert_eq!(with(V2, "cpuset cpu io memory pids\n").status, Status::Ok);
        assert_eq!(with(&format!("{V1}{V2}"), "\n").status, Status::Warning);
        let partly: String = V1.lines().filter(|line| !line.contains("memory")).map(|l| format!("{l}\n")).collect();
        let check = with(&format!("{partly}{V2}"), "");
        assert_eq!((check.status, check.found.as_str()), (Status::Failed, "missing controllers: memory"));
        assert_eq!(with(V2, "cpu").found, "missing controllers: memory, pids");
        assert_eq!(cgroups("", Path::new("runc"), |_| None).status, Status::Failed);
    }

    #[test]
    fn a_runtime_that_keeps_no_limits_there_is_told() {
        let both = format!("{V1}{V2}");
        let with = |runtime: &str, mounts: &str, controllers: &'static str| {
            cgroups(mounts, Path::new(runtime), |_| Some(controllers.to_owned())).status
        };
        assert_eq!(with("/usr/bin/crun", &both, "\n"), Status::Failed);
        assert_eq!(with("/usr/bin/crun", V2, "cpu memory pids\n"), Status::Ok);
        assert_eq!(with("/usr/sbin/runc", &both, "hugetlb\n"), Status::Warning);
    }
}
