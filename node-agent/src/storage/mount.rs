//! Idmapped mounts of root file systems, below one folder whose mounts are private: what is mounted there
//! reaches no other mount namespace. Each root file system's own mount is shared: what is mounted inside it on the host
//! reaches the container that runs in it, and nothing comes back.

use nix::{
    errno::Errno,
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::fstat,
};
use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Mounts stacked on one mount point that `unmount` takes off; the agent itself never stacks any.
const MAX_STACKED: usize = 64;

/// What a mount allows beyond what the mount of its source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Setuid files work, within the user namespace of whoever runs them.
    pub(crate) setuid: bool,
    /// Nothing can be written through it.
    pub(crate) readonly: bool,
}

/// Makes `folder` a private mount of its own, once.
pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    if !is_mount_point(folder)? {
        mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    mount(None::<&str>, folder, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(())
}

/// Makes the mount at `target` one whose later mounts reach the copies of it in containers, and nothing of theirs it.
pub(crate) fn make_shared(target: &Path) -> io::Result<()> {
    Ok(mount(None::<&str>, target, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?)
}

/// Mounts what is mounted at the folder `source` also over the folder `target`, with the same owners and attributes.
pub(crate) fn bind(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let tree = clone_tree(source)?;
    // No peer of the mount that it is a copy of.
    let private = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    set_attributes(tree.as_fd(), &private)?;
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: empty paths with these flags mean the descriptors themselves.
    checked(unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), target.as_raw_fd(), c"".as_ptr(), flags)
    })
}

/// Takes off what is mounted where `mounted` is the top of: it is gone from names at once.
pub(crate) fn detach(mounted: BorrowedFd<'_>) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", mounted.as_raw_fd());
    Ok(umount2(path.as_str(), MntFlags::MNT_DETACH)?)
}

/// Through which mount a file is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The mount's id: the first field of `proc_pid_mountinfo(5)`.
    pub(crate) id: u64,
    /// The file is what the mount shows where it is mounted.
    pub(crate) is_top: bool,
}

/// Through which mount an open file is seen.
pub(crate) fn seen_through(file: BorrowedFd<'_>) -> io::Result<Seen> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    // SAFETY: all-zero is a valid statx buffer.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the empty path with AT_EMPTY_PATH means the descriptor itself, and the kernel fills one statx buffer.
    let done = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_MNT_ID, &mut found) };
    checked(done.into())?;
    let top = libc::STATX_ATTR_MOUNT_ROOT as u64;
    if found.stx_mask & libc::STATX_MNT_ID == 0 || found.stx_attributes_mask & top == 0 {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    Ok(Seen { id: found.stx_mnt_id, is_top: found.stx_attributes & top != 0 })
}

/// True where something is mounted at `path`; false where there is nothing at all.
pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: all-zero is a valid statx buffer.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is terminated, and the kernel fills one statx buffer.
    let done = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_TYPE, &mut found) };
    if done < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
    }
    let bit = libc::STATX_ATTR_MOUNT_ROOT as u64;
    if found.stx_attributes_mask & bit == 0 {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    Ok(found.stx_attributes & bit != 0)
}

/// True where `target` shows the same file as `source` with owners shifted by `first`: the mount that
/// [`idmapped`] makes.
pub(crate) fn is_idmapped(source: BorrowedFd<'_>, target: &Path, first: u32) -> io::Result<bool> {
    if !is_mount_point(target)? {
        return Ok(false);
    }
    let below = fstat(source)?;
    let seen = nix::sys::stat::lstat(target)?;
    let shifted = |raw: u32, mapped: u32| raw.checked_add(first) == Some(mapped);
    Ok((below.st_dev, below.st_ino) == (seen.st_dev, seen.st_ino)
        && shifted(below.st_uid, seen.st_uid)
        && shifted(below.st_gid, seen.st_gid))
}

/// Mounts the folder `source` at `target` with owners mapped as `namespace` says, without what is mounted below it.
/// Whatever the mount of the source says, files may be executed, and device nodes mean nothing.
pub(crate) fn idmapped(
    source: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    target: &Path,
    Attributes { setuid, readonly }: Attributes,
) -> io::Result<()> {
    let tree = clone_tree(source)?;
    let (mut set, mut clear) = (libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NODEV, libc::MOUNT_ATTR_NOEXEC);
    *if setuid { &mut clear } else { &mut set } |= libc::MOUNT_ATTR_NOSUID;
    if readonly {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: libc::MS_PRIVATE,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    set_attributes(tree.as_fd(), &attributes)?;
    attach(tree.as_fd(), &c_path(target)?)
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: an empty path with AT_EMPTY_PATH means the descriptor itself; the kernel reads one mount_attr
    // of the stated size.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    })
}

/// Takes every mount off `target`; success where there is none. A mount in use is detached: it is gone from
/// here at once, and from the kernel when its last user is.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    for _ in 0..MAX_STACKED {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EBUSY) => umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)?,
            // Not a mount point; nothing there.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EBUSY.into())
}

fn clone_tree(source: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    // SAFETY: an empty path with AT_EMPTY_PATH means the descriptor itself.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), flags) };
    checked(fd)?;
    // SAFETY: the kernel just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    // SAFETY: both paths are terminated; the empty one means the descriptor itself. Symbolic links in the
    // target's last place are not followed without MOVE_MOUNT_T_SYMLINKS.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}
