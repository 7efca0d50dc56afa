//! What tells one machine from another inside a copied root file system.

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    unistd::ftruncate,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

/// Empties `/etc/machine-id`, which systemd then makes anew at the next start (machine-id(5)). Anything but a plain
/// file in a plain folder is left as it is: the file system is a tenant's, and no link of it is followed.
pub(super) fn forget(root: BorrowedFd<'_>) -> io::Result<()> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    // Nonblocking, should it be a FIFO.
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = match openat2(root, "etc/machine-id", OpenHow::new().flags(flags).resolve(resolve)) {
        Ok(file) => file,
        Err(
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ELOOP
            | Errno::EXDEV
            | Errno::EISDIR
            | Errno::ENXIO
            | Errno::EPERM
            | Errno::EACCES
            | Errno::ENODEV,
        ) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    match ftruncate(file.as_fd(), 0) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
