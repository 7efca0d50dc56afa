//! What is mounted in a container, and what of `/proc` and `/sys` is hidden or read-only.

use super::{Bundle, first_process::INIT_INSIDE, kvm, layout::Layout};
use hoody_protocol::share;
use oci_spec::{
    OciSpecError,
    runtime::{Mount, MountBuilder},
};
use std::path::Path;

/// `/dev` holds a few nodes and links; its memory counts as the container's, but nobody else limits it.
const DEV_SIZE: &str = "size=1m";
/// `/dev/shm` may take up to this part of the container's memory.
const SHM_DIVISOR: u64 = 2;
/// `/run` of a system image, likewise.
const RUN_DIVISOR: u64 = 4;
/// `/run/lock` of a system image.
const LOCK_SIZE: &str = "size=5m";

/// Hidden: they say or change something about the node. The user namespace forbids most of it too;
/// hiding them also keeps a new `/proc` from being mounted without the masks.
pub(super) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Visible, but never written.
pub(super) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Files of the bundle's `etc` folder that appear in the container's `/etc`.
pub(super) const ETC_FILES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

/// All mounts, in order.
pub(super) fn mounts(
    bundle: &Bundle,
    layout: &Layout,
    systemd: bool,
    init: Option<&Path>,
    shares: Option<&Path>,
) -> Result<Vec<Mount>, OciSpecError> {
    let Bundle { id, limits, kvm, ramdisk, .. } = bundle;
    let shm = format!("size={}", limits.memory_bytes / SHM_DIVISOR);
    let cgroup_access = if systemd { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", DEV_SIZE])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            // Group 5 is `tty` in every distribution.
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm])?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", cgroup_access])?,
    ];
    if systemd {
        let run = format!("size={}", limits.memory_bytes / RUN_DIVISOR);
        mounts.push(mount("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=755", &run])?);
        mounts.push(mount("/run/lock", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "mode=1777", LOCK_SIZE])?);
    }
    // After `/run`: an image's /etc/resolv.conf may lead there.
    for name in ETC_FILES {
        let source = layout.etc(*id).join(name);
        mounts.push(bind(&source, &format!("/etc/{name}"), &["bind", "rw", "nosuid", "nodev", "noexec"])?);
    }
    if *kvm {
        // Without nodev, or it could not be opened.
        mounts.push(bind(&layout.devices(*id).join(kvm::NAME), kvm::DEVICE, &["bind", "rw", "nosuid", "noexec"])?);
    }
    if let Some(disk) = ramdisk {
        mounts.push(bind(disk, share::RAMDISK, &["bind", "rw", "nosuid", "nodev"])?);
    }
    if let Some(folder) = shares {
        // What is mounted on the host's side later appears here too, and nothing goes the other way.
        mounts.push(bind(folder, share::MOUNT_POINT, &["rbind", "rslave", "ro", "nosuid", "nodev", "noexec"])?);
    }
    if let Some(init) = init {
        mounts.push(bind(init, INIT_INSIDE, &["bind", "ro", "nosuid", "nodev"])?);
    }
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
    MountBuilder::default().destination(destination).typ(kind).source(source).options(options).build()
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
    MountBuilder::default().destination(destination).typ("bind").source(source).options(options).build()
}
