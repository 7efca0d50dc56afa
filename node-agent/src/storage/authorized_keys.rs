//! The platform's line in a container's `/root/.ssh/authorized_keys`.
//!
//! The file system is the tenant's, and may change while this works. Every step is relative to an open folder and follows
//! no link (`openat2(2)`), so that nothing outside of the container's subvolume is ever read or written; the file is
//! replaced as a whole. It is written beside the idmapped mount, where the node's root is the container's root.

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat},
    sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Ends the line that is the platform's: a remark to the SSH server.
const MARK: &str = " hoody:ssh_public_key";
const FILE: &str = "authorized_keys";
const TEMPORARY: &str = ".authorized_keys.hoody";
/// A file beyond this is not touched.
const MAX_BYTES: u64 = 256 << 10;

/// Makes `key` the platform's line below the container's `root`; `None`: takes it out. Other lines stay as they are.
pub(super) fn place(root: BorrowedFd<'_>, key: Option<&str>) -> io::Result<()> {
    let Some(folder) = folder(root, key.is_some())? else { return Ok(()) };
    let (before, attributes) = match read(folder.as_fd())? {
        Some((text, attributes)) => (text, Some(attributes)),
        None => (Vec::new(), None),
    };
    let after = with_line(&before, key);
    if after == before {
        return Ok(());
    }
    replace(folder.as_fd(), &after, attributes)
}

/// `/root/.ssh`, made where it is missing and `make` says so.
fn folder(root: BorrowedFd<'_>, make: bool) -> io::Result<Option<OwnedFd>> {
    let mut parent = root.try_clone_to_owned()?;
    for name in ["root", ".ssh"] {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        parent = match open(parent.as_fd(), name, flags, Mode::empty()) {
            Err(Errno::ENOENT) if make => {
                match mkdirat(&parent, name, Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                open(parent.as_fd(), name, flags, Mode::empty())?
            }
            Err(Errno::ENOENT) => return Ok(None),
            opened => opened?,
        };
    }
    Ok(Some(parent))
}

/// What the file holds; `None` where there is none. Anything but a plain file is refused.
fn read(folder: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, FileStat)>> {
    // Nonblocking, should it be a FIFO.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match open(folder, FILE, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "authorized_keys is not a plain file"));
    }
    let attributes = fstat(&file)?;
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "authorized_keys is too large"));
    }
    Ok(Some((text, attributes)))
}

/// Replaces the file; owner and mode stay.
fn replace(folder: BorrowedFd<'_>, text: &[u8], attributes: Option<FileStat>) -> io::Result<()> {
    // What an agent that was killed has left.
    match unlinkat(folder, TEMPORARY, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let mut file = File::from(open(folder, TEMPORARY, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let written = (|| {
        file.write_all(text)?;
        if let Some(found) = attributes {
            fchown(&file, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
            // No more than reading and writing: other bits mean nothing here.
            fchmod(&file, Mode::from_bits_truncate(found.st_mode & 0o666))?;
        }
        // On the disk before it takes the old one's place: a crash must not leave an empty file.
        file.sync_all()?;
        Ok(renameat(folder, TEMPORARY, folder, FILE)?)
    })();
    if written.is_err() {
        // Where it stays, the next try removes it.
        let _ = unlinkat(folder, TEMPORARY, UnlinkatFlags::NoRemoveDir);
    }
    written
}

fn open(parent: BorrowedFd<'_>, name: &str, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(parent, name, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve))
}

/// The lines without the platform's, and with `key` as that; the same bytes where nothing changes.
fn with_line(before: &[u8], key: Option<&str>) -> Vec<u8> {
    let wanted = key.map(|key| format!("{key}{MARK}"));
    let is_ours = |line: &[u8]| line.trim_ascii_end().ends_with(MARK.as_bytes());
    let ours: Vec<&[u8]> = before.split(|byte| *byte == b'\n').filter(|line| is_ours(line)).collect();
    match &wanted {
        Some(wanted) if ours == [wanted.as_bytes()] => return before.to_vec(),
        None if ours.is_empty() => return before.to_vec(),
        _ => {}
    }
    let mut after = Vec::with_capacity(before.len());
    for line in before.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_ours(line)) {
        after.extend_from_slice(line);
    }
    if let Some(wanted) = wanted {
        if !after.is_empty() && !after.ends_with(b"\n") {
            after.push(b'\n');
        }
        after.extend_from_slice(wanted.as_bytes());
        after.push(b'\n');
    }
    after
}

/// Any bytes as a tenant's file, for fuzzing: the platform's line comes, once, and goes, and no other does.
pub(crate) fn fuzzing(before: &[u8]) {
    const KEY: &str = "ssh-ed25519 AAAA";
    let others = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii_end().ends_with(MARK.as_bytes()));
        lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let with = with_line(before, Some(KEY));
    let line = [KEY.as_bytes(), MARK.as_bytes()].concat();
    assert_eq!(with.split(|byte| *byte == b'\n').filter(|found| *found == line).count(), 1);
    assert_eq!(with_line(&with, Some(KEY)), with);
    let without = with_line(&with, None);
    assert_eq!(with_line(&without, None), without);
    assert_eq!((others(&with), others(&without)), (others(before), others(before)));
}

#[cfg(test)]
#[path = "authorized_keys_tests.rs"]
mod tests;
