//! Subvolumes: opening by name, and deletion of a whole tree of nested ones.

use super::ioctl;
use nix::{
    fcntl::{OFlag, openat},
    libc,
    sys::stat::{Mode, fstat},
    sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

const ROOT_BACKREF: u32 = 144;
const ROOT_REF: u32 = 156;
/// How often a deletion starts over because processes still made subvolumes below.
const DELETE_ROUNDS: usize = 8;

/// Opens the folder `path`; a symbolic link in its last place is refused.
pub(crate) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    open_folder_at(nix::fcntl::AT_FDCWD, path)
}

/// Opens the folder `name` in `parent`; a symbolic link in its last place is refused.
pub(crate) fn open_folder_at(parent: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// True where the file is on btrfs.
pub(crate) fn is_btrfs(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// True where the folder is the top of a subvolume.
pub(crate) fn is_subvolume(folder: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstat(folder)?.st_ino == ioctl::TOP_INODE && is_btrfs(folder)?)
}

/// Opens the subvolume at `path`; `None` where there is nothing, or something else.
pub(crate) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_folder(path) {
        Ok(folder) => Ok(is_subvolume(folder.as_fd())?.then_some(folder)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes whatever is at `path`, a subvolume with all nested ones or a plain file or folder; success where
/// there is nothing. Returns before the space is free.
pub(crate) fn delete(pool: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    if let Some(top) = open(path)? {
        let id = ioctl::subvolume_id(top.as_fd())?;
        drop(top);
        return delete_tree(pool, id);
    }
    let gone = match std::fs::symlink_metadata(path) {
        Ok(entry) if entry.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Deletes subvolume `id` and every one nested in it, the deepest first. By id: no path is walked, so names
/// and links inside do not matter.
fn delete_tree(pool: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    for round in 1.. {
        let mut order = vec![id];
        let mut next = 0;
        while let Some(parent) = order.get(next) {
            order.extend(nested(pool, *parent)?);
            next += 1;
        }
        match order.into_iter().rev().try_for_each(|id| destroy(pool, id)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) && round < DELETE_ROUNDS => {}
            other => return other,
        }
    }
    Ok(())
}

/// Ids of the subvolumes whose place is inside subvolume `id`.
fn nested(pool: BorrowedFd<'_>, id: u64) -> io::Result<Vec<u64>> {
    let references = ioctl::search(pool, ioctl::ROOT_TREE, id, ROOT_REF, 0..=u64::MAX)?;
    Ok(references.iter().map(|reference| reference.offset).collect())
}

/// Destroys one subvolume; where a mark stands in the way, takes it off first.
fn destroy(pool: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    match ioctl::destroy(pool, id) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EROFS)) => {
            clear_marks(pool, id)?;
            settle(ioctl::destroy(pool, id))
        }
        other => settle(other),
    }
}

fn settle(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the place where subvolume `id` is linked writable: the parent subvolume must not be read-only, the
/// folder and the subvolume itself not immutable.
fn clear_marks(pool: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    for place in ioctl::search(pool, ioctl::ROOT_TREE, id, ROOT_BACKREF, 0..=u64::MAX)? {
        let (parent, folder) = (place.offset, place.u64_at(0));
        ioctl::set_read_only(ioctl::open_inode(pool, parent, ioctl::TOP_INODE)?.as_fd(), false)?;
        ioctl::clear_immutable(ioctl::open_inode(pool, parent, folder)?.as_fd())?;
    }
    let top = ioctl::open_inode(pool, id, ioctl::TOP_INODE)?;
    ioctl::set_read_only(top.as_fd(), false)?;
    ioctl::clear_immutable(top.as_fd())
}

fn is_absent(error: &io::Error) -> bool {
    // A symbolic link or another file in the place of the subvolume.
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}
