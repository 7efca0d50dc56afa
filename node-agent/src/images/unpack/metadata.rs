//! Owner, mode, extended attributes and time of what was unpacked, in the one order that works: a change of
//! owner clears setuid bits and capabilities, and every write changes the time.

use super::{
    archive::{Entry, Kind},
    report::{Refusal, Stop},
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat},
    sys::time::TimeSpec,
    unistd::{Gid, Uid, fchownat},
};
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// Longest value of an extended attribute: an item of a btrfs leaf of 16 KiB, with room for its name.
const MAX_XATTR_BYTES: usize = 15 << 10;
/// Longest name of an extended attribute.
const MAX_XATTR_NAME_BYTES: usize = 255;
const CAPABILITY: &[u8] = b"security.capability";
/// Bytes of `struct vfs_cap_data` of revision 2, the one without a namespace's root id.
const CAPABILITY_BYTES: usize = 20;
const CAPABILITY_REVISION: u8 = 2;

/// Applies all but the time to `path`; returns how many extended attributes were left out.
pub(crate) fn apply(path: &Path, entry: &Entry) -> Result<u64, Stop> {
    let (owner, group) = (Some(Uid::from_raw(entry.owner)), Some(Gid::from_raw(entry.group)));
    fchownat(AT_FDCWD, path, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if entry.kind == Kind::Symlink {
        return Ok(entry.xattrs.len() as u64);
    }
    // Never a link here: files are made anew, and what is kept was looked at.
    fchmodat(AT_FDCWD, path, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)?;
    let mut dropped = 0;
    for (name, value) in &entry.xattrs {
        if !is_allowed(entry.kind, name, value) {
            dropped += 1;
            continue;
        }
        if value.len() > MAX_XATTR_BYTES || name.len() > MAX_XATTR_NAME_BYTES || name.contains(&0) {
            return Err(Refusal::Xattr.into());
        }
        xattr::set(path, OsStr::from_bytes(name), value)?;
    }
    Ok(dropped)
}

/// Sets the time of last change; that of the last access is the same.
pub(crate) fn set_time(path: &Path, time: (i64, i64)) -> Result<(), Stop> {
    set(path, time, UtimensatFlags::NoFollowSymlink)
}

/// The same for what a symbolic link leads to.
pub(crate) fn set_time_through_links(path: &Path, time: (i64, i64)) -> Result<(), Stop> {
    set(path, time, UtimensatFlags::FollowSymlink)
}

fn set(path: &Path, (seconds, nanoseconds): (i64, i64), links: UtimensatFlags) -> Result<(), Stop> {
    let time = TimeSpec::new(seconds, nanoseconds);
    Ok(utimensat(AT_FDCWD, path, &time, &time, links)?)
}

/// `user.*`, and file capabilities that are not bound to some namespace's root. Others would mean something
/// to the host (`trusted.*`, other `security.*`, ACLs with ids of the host).
fn is_allowed(kind: Kind, name: &[u8], value: &[u8]) -> bool {
    match kind {
        Kind::File if name == CAPABILITY => value.len() == CAPABILITY_BYTES && value[3] == CAPABILITY_REVISION,
        Kind::File | Kind::Folder => name.starts_with(b"user.") && name.len() > b"user.".len(),
        _ => false,
    }
}
