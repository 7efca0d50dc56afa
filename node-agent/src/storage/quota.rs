//! Disk limits and usage by btrfs quota groups: one level-0 group per subvolume.
//!
//! Simple accounting is preferred: each extent is charged to the subvolume that wrote it, when it is
//! written, so that creating and deleting snapshots costs nothing more (`docs/storage.md` has the numbers).
//! Full accounting, the only kind before Linux 6.7, walks references and goes inconsistent when big trees
//! are dropped. In both, the limit and the usage are *exclusive* bytes: what the container wrote, without
//! the image that it shares with others.
//!
//! With simple accounting the limit is on a group of level 1 per container. Every root file system that the container
//! has had is in it: what an earlier one wrote and a snapshot still holds goes on counting, so that a container
//! and all its snapshots together never take more than its limit.

use super::ioctl;
use hoody_protocol::id::ContainerId;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// How the pool counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuotaMode {
    /// Extents are charged to the subvolume that wrote them (Linux 6.7 and later).
    Simple,
    /// Shared and exclusive bytes are found by walking references.
    Full,
}

const STATUS_ITEM: u32 = 240;
const INFO_ITEM: u32 = 242;
const LIMIT_ITEM: u32 = 244;
const ROOT_ITEM: u32 = 132;
/// Byte of the flags in `struct btrfs_qgroup_status_item`.
const STATUS_FLAGS_AT: usize = 16;
const STATUS_INCONSISTENT: u64 = 1 << 2;
const STATUS_SIMPLE: u64 = 1 << 3;
/// Byte of the exclusive count in `struct btrfs_qgroup_info_item`.
const INFO_EXCLUSIVE_AT: usize = 24;
/// Byte of the exclusive limit in `struct btrfs_qgroup_limit_item`.
const LIMIT_EXCLUSIVE_AT: usize = 16;
const LIMIT_HAS_EXCLUSIVE: u64 = 1 << 1;
/// Highest group id of level 0; above it the upper 16 bits are the level.
const LAST_LEVEL_0: u64 = LEVEL_1 - 1;
/// Bits of groups of levels 1 and 2.
const LEVEL_1: u64 = 1 << 48;
const LEVEL_2: u64 = 2 << 48;

/// The group of level 1 that stands for a container. Two containers of one pool could get the same (48 bits of an id
/// are random): they would then share the smaller room.
pub(crate) fn group_of(container: ContainerId) -> u64 {
    LEVEL_1 | number_of(container)
}

/// The group of level 2 that stands for what was received for a container. What a file system that was received brought, and
/// a snapshot still holds, goes on counting there when that file system is gone.
pub(crate) fn group_of_received(container: ContainerId) -> u64 {
    LEVEL_2 | number_of(container)
}

fn number_of(container: ContainerId) -> u64 {
    let mut number = [0; 8];
    number[2..].copy_from_slice(&container.as_bytes()[6..]);
    u64::from_be_bytes(number)
}

/// True where extents are charged to the subvolume that wrote them.
pub(crate) fn is_simple(pool: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(status_flags(pool)?.is_some_and(|flags| flags & STATUS_SIMPLE != 0))
}

/// Turns quotas on where they are off, in the preferred mode where the kernel has it; full quotas that went
/// inconsistent are counted anew in the background. Returns the mode in force: a mode that is already on is
/// never changed, because that would lose the limits.
pub(crate) fn enable(pool: BorrowedFd<'_>, preferred: QuotaMode) -> io::Result<QuotaMode> {
    if status_flags(pool)?.is_none() {
        match ioctl::enable_quota(pool, preferred == QuotaMode::Simple) {
            Err(error) if preferred == QuotaMode::Simple && is_unknown(&error) => ioctl::enable_quota(pool, false)?,
            other => other?,
        }
    }
    let flags = status_flags(pool)?.ok_or_else(|| io::Error::other("quotas are off after they were enabled"))?;
    if flags & STATUS_SIMPLE != 0 {
        return Ok(QuotaMode::Simple);
    }
    if flags & STATUS_INCONSISTENT != 0 {
        match ioctl::rescan_quota(pool) {
            // One is running.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
            other => other?,
        }
    }
    Ok(QuotaMode::Full)
}

/// Exclusive bytes of a quota group (a subvolume's has its id) and their limit, as of the file system's last commit (at most its commit
/// interval ago, 30 s by default).
pub(crate) fn usage(pool: BorrowedFd<'_>, group: u64) -> io::Result<(u64, Option<u64>)> {
    let info = ioctl::search(pool, ioctl::QUOTA_TREE, 0, INFO_ITEM, group..=group)?;
    let limit = ioctl::search(pool, ioctl::QUOTA_TREE, 0, LIMIT_ITEM, group..=group)?;
    let used = info.first().map_or(0, |item| item.u64_at(INFO_EXCLUSIVE_AT));
    let limit = limit.first().filter(|item| item.u64_at(0) & LIMIT_HAS_EXCLUSIVE != 0);
    Ok((used, limit.map(|item| item.u64_at(LIMIT_EXCLUSIVE_AT))))
}

/// Removes the groups of subvolumes that are gone; returns how many. A group that still has extents charged
/// to it (the kernel frees them after the deletion) stays for a later call.
pub(crate) fn remove_stale(pool: BorrowedFd<'_>) -> io::Result<usize> {
    let mut removed = 0;
    for group in ioctl::search(pool, ioctl::QUOTA_TREE, 0, INFO_ITEM, ioctl::TOP_INODE..=LAST_LEVEL_0)? {
        let id = group.offset;
        if !ioctl::search(pool, ioctl::ROOT_TREE, id, ROOT_ITEM, 0..=u64::MAX)?.is_empty() {
            continue;
        }
        match ioctl::remove_qgroup(pool, id) {
            Ok(()) => removed += 1,
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EBUSY | nix::libc::ENOENT)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Removes the groups of levels 1 and 2 that are not `in_use`; those that something is still charged to stay for a later call.
pub(crate) fn remove_unused(pool: BorrowedFd<'_>, in_use: impl Fn(u64) -> bool) -> io::Result<()> {
    for group in ioctl::search(pool, ioctl::QUOTA_TREE, 0, INFO_ITEM, LEVEL_1..=(LEVEL_2 | LAST_LEVEL_0))? {
        if in_use(group.offset) {
            continue;
        }
        match ioctl::remove_qgroup(pool, group.offset) {
            Err(error) if !matches!(error.raw_os_error(), Some(nix::libc::EBUSY | nix::libc::ENOENT)) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

fn status_flags(pool: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    match ioctl::search(pool.as_fd(), ioctl::QUOTA_TREE, 0, STATUS_ITEM, 0..=0) {
        Ok(items) => Ok(items.first().map(|item| item.u64_at(STATUS_FLAGS_AT))),
        // There is no quota tree.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel does not know the command.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EINVAL | nix::libc::ENOTTY | nix::libc::EOPNOTSUPP))
}
