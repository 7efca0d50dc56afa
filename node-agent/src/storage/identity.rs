//! What tells one machine from another inside a root file system: `/etc/machine-id` (machine-id(5)). Anything but a plain
//! file in a plain folder is left as it is: the file system is a tenant's, and no link of it is followed.

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    unistd::ftruncate,
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

/// More than the 32 digits and the line's end of machine-id(5).
const MAX_BYTES: u64 = 64;

/// Empties the identity, which systemd then makes anew at the next start.
pub(super) fn forget(root: BorrowedFd<'_>) -> io::Result<()> {
    let Some(file) = open(root, OFlag::O_WRONLY)? else { return Ok(()) };
    match ftruncate(file.as_fd(), 0) {
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes the identity of the root file system `from` into `to`, where both have the file.
pub(super) fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let (Some(from), Some(mut to)) = (open(from, OFlag::O_RDONLY)?, open(to, OFlag::O_WRONLY)?) else { return Ok(()) };
    if !from.metadata()?.is_file() || !to.metadata()?.is_file() {
        return Ok(());
    }
    let mut identity = Vec::new();
    from.take(MAX_BYTES).read_to_end(&mut identity)?;
    to.set_len(0)?;
    to.write_all(&identity)
}

fn open(root: BorrowedFd<'_>, access: OFlag) -> io::Result<Option<File>> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    // Nonblocking, should it be a FIFO.
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    match openat2(root, "etc/machine-id", OpenHow::new().flags(flags).resolve(resolve)) {
        Ok(file) => Ok(Some(file.into())),
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
        ) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
