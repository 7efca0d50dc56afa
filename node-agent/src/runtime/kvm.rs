//! `/dev/kvm` in a container that was granted it. The node's own device belongs to the node's root, which is nobody
//! inside, so the container gets a node of its own: the same device, owned by its root, on a tmpfs of one page that
//! nothing inside can write to. Together with a rule for the device cgroup, and only then, it can be opened.

use super::{Bundle, RuntimeError, error::io, etc};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, major, makedev, minor, mknod},
};
use oci_spec::{
    OciSpecError,
    runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType},
};
use std::{
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::Path,
};

/// Where it is, on the node and inside.
pub(super) const DEVICE: &str = "/dev/kvm";
/// The node's name in its folder.
pub(super) const NAME: &str = "kvm";
/// Its numbers, for ever (Linux' devices.txt).
const NUMBERS: (u64, u64) = (10, 232);
/// Root and its group, as distributions have it.
const MODE: u32 = 0o660;
const OPTIONS: &str = "size=4k,nr_inodes=4,mode=0711";
/// `KVM_GET_API_VERSION` and what it has answered since 2007 (Linux' virt/kvm/api).
const GET_API_VERSION: u64 = 0xAE00;
const API_VERSION: i32 = 12;

/// True where the node has KVM and it answers.
pub fn usable() -> bool {
    let Ok(device) = open(DEVICE, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) else { return false };
    // SAFETY: the descriptor is open, and this request takes no argument.
    let version = unsafe { libc::ioctl(device.as_raw_fd(), GET_API_VERSION, 0) };
    version == API_VERSION
}

/// Opening it is allowed.
pub(super) fn rule() -> Result<LinuxDeviceCgroup, OciSpecError> {
    let (major, minor) = NUMBERS;
    LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(LinuxDeviceType::C)
        .major(major as i64)
        .minor(minor as i64)
        .access("rw".to_owned())
        .build()
}

/// Mounts `folder` and makes the container's node in it. What was mounted there before goes.
pub(super) fn make(bundle: &Bundle, folder: &Path) -> Result<(), RuntimeError> {
    let id = bundle.id;
    let found = std::fs::symlink_metadata(DEVICE);
    let (major_number, minor_number) = NUMBERS;
    let there = found.is_ok_and(|node| {
        node.file_type().is_char_device() && (major(node.rdev()), minor(node.rdev())) == (major_number, minor_number)
    });
    if !there {
        return Err(RuntimeError::NoKvm { id, path: DEVICE.into() });
    }
    etc::unmount(folder)?;
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("hoody-devices"), folder, Some("tmpfs"), flags, Some(OPTIONS))
        .map_err(|errno: Errno| io("mount", folder)(errno.into()))?;
    let node = folder.join(NAME);
    mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(major_number, minor_number))
        .map_err(|errno: Errno| io("make", &node)(errno.into()))?;
    std::fs::set_permissions(&node, std::fs::Permissions::from_mode(MODE)).map_err(io("chmod", &node))?;
    std::os::unix::fs::lchown(&node, Some(bundle.ids.first), Some(bundle.ids.first)).map_err(io("chown", &node))
}
