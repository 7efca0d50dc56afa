//! Folders that the platform makes in a root file system for what it mounts there, and removes once nothing is.
//!
//! Which those are is written down at the top of the subvolume, each by its inode and path: it goes with snapshots and
//! copies. A folder is removed only where that inode is still at that path, empty, and no mount point: whatever the tenant
//! has put into it, put in its place or moved elsewhere is the tenant's. All paths are resolved in the subvolume itself,
//! below whatever is mounted in the container, where the node's root is the container's.

use super::inside;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, ResolveFlag},
    libc::ino_t,
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, fstatat, mkdirat, umask},
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};
use xattr::FileExt;

/// The record: for each folder its inode, decimal, a space, its path and a zero byte. Tenants neither see nor set it.
const RECORD: &str = "trusted.hoody.made_folders";
/// Of folders that are made; their owner is the container's root.
const FOLDER_MODE: Mode = Mode::from_bits_truncate(0o755);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    inode: ino_t,
    /// In the root file system, links resolved.
    path: PathBuf,
}

/// Makes what is missing of `path`, an absolute path without `.` and `..`, in the subvolume of `root`. `allowed` is asked
/// of where each would really be: `EPERM` where it says no.
pub(crate) fn make(root: BorrowedFd<'_>, path: &str, allowed: impl Fn(&Path) -> bool) -> nix::Result<()> {
    let open = |path: &str| inside::open_folder(root, Path::new(path), ResolveFlag::RESOLVE_NO_XDEV);
    let mut parent = open("/")?;
    for end in path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]) {
        match open(&path[..end]) {
            Ok(folder) => {
                parent = folder;
                continue;
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let name = Path::new(&path[..end]).file_name().ok_or(Errno::EINVAL)?;
        let at = inside::path_of(root, parent.as_fd()).map_err(|_| Errno::ENOENT)?.join(name);
        if !allowed(&at) {
            return Err(Errno::EPERM);
        }
        make_one(parent.as_fd(), name)?;
        let inode = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_ino;
        if note(root, Made { inode, path: at }).is_err() {
            // More than can be written down.
            unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?;
            return Err(Errno::ENOSPC);
        }
        hoody_fault::point!("place.made");
        parent = open(&path[..end])?;
    }
    Ok(())
}

/// With exactly its mode, whatever the agent's umask, from the first instant on: a change of the mode afterwards could meet
/// another folder that somebody put there.
fn make_one(parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<()> {
    let make = || {
        // A umask of this thread's own, which ends with it.
        unshare(CloneFlags::CLONE_FS)?;
        umask(Mode::from_bits_truncate(0o777).difference(FOLDER_MODE));
        mkdirat(parent, name, FOLDER_MODE)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("mkdir".to_owned()).spawn_scoped(scope, make);
        thread.map_err(|_| Errno::EAGAIN)?.join().unwrap_or(Err(Errno::EAGAIN))
    })
}

/// Removes those folders at which nothing is mounted and in which nothing is; gives whether any is left.
pub(crate) fn remove_unused(root: BorrowedFd<'_>) -> io::Result<bool> {
    let mut all = read(root)?;
    let before = all.len();
    // What is inside of another first.
    all.sort_by_key(|made| std::cmp::Reverse(made.path.components().count()));
    let mut kept: Vec<Made> = Vec::new();
    for made in all {
        let holds_another = kept.iter().any(|other| other.path.starts_with(&made.path));
        if holds_another || remove(root, &made) == Err(Errno::EBUSY) {
            kept.push(made);
        }
    }
    if kept.len() < before {
        write(root, &kept)?;
    }
    Ok(!kept.is_empty())
}

/// `EBUSY`: something is mounted there.
fn remove(root: BorrowedFd<'_>, made: &Made) -> nix::Result<()> {
    let (Some(parent), Some(name)) = (made.path.parent(), made.path.file_name()) else { return Ok(()) };
    let more = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let parent = inside::open_folder(root, parent, more)?;
    if fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_ino != made.inode {
        return Ok(());
    }
    unlinkat(&parent, name, UnlinkatFlags::RemoveDir)
}

/// Where the platform has made folders, below the root and without a leading slash.
pub(crate) fn paths(root: BorrowedFd<'_>) -> io::Result<Vec<PathBuf>> {
    let inside = |made: Made| made.path.strip_prefix("/").map(Path::to_owned).unwrap_or(made.path);
    Ok(read(root)?.into_iter().map(inside).collect())
}

fn note(root: BorrowedFd<'_>, made: Made) -> io::Result<()> {
    let mut all = read(root)?;
    // Left by one that is gone.
    all.retain(|other| other.path != made.path);
    all.push(made);
    write(root, &all)
}

fn read(root: BorrowedFd<'_>) -> io::Result<Vec<Made>> {
    let text = File::from(root.try_clone_to_owned()?).get_xattr(RECORD)?.unwrap_or_default();
    let entries = text.split(|byte| *byte == 0).filter_map(|entry| {
        let space = entry.iter().position(|byte| *byte == b' ')?;
        let inode = std::str::from_utf8(&entry[..space]).ok()?.parse().ok()?;
        Some(Made { inode, path: PathBuf::from(OsStr::from_bytes(&entry[space + 1..])) })
    });
    Ok(entries.collect())
}

fn write(root: BorrowedFd<'_>, all: &[Made]) -> io::Result<()> {
    let top = File::from(root.try_clone_to_owned()?);
    if all.is_empty() {
        return top.remove_xattr(RECORD);
    }
    let entry =
        |made: &Made| [made.inode.to_string().as_bytes(), b" ", made.path.as_os_str().as_bytes(), b"\0"].concat();
    top.set_xattr(RECORD, &all.iter().flat_map(entry).collect::<Vec<u8>>())
}

#[cfg(test)]
#[path = "made_tests.rs"]
mod tests;
