//! Walks, empties and removes a group and all below it. A container that runs systemd owns the groups
//! below its own and may nest them so deep that no path reaches them: every step is relative to an open
//! folder (`openat(2)`).

use super::super::{RuntimeError, error::io, pidfd::ProcessId};
use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::Path,
};

/// Levels that are followed; each holds a descriptor open meanwhile.
const MAX_DEPTH: usize = 512;
/// `cgroup.procs` of a full container (32,768 processes of 7 digits) with room to spare.
const MAX_PROCS_BYTES: u64 = 1 << 20;
const PROCS: &str = "cgroup.procs";
/// v2 only: kills all processes of the group and below at once, forks in progress included.
const KILL: &str = "cgroup.kill";

/// Every process in the group and below; empty where there is no group.
pub(in crate::runtime) fn processes(path: &Path) -> Result<BTreeSet<i32>, RuntimeError> {
    let mut pids = BTreeSet::new();
    if let Some(folder) = open(path)? {
        collect(&folder, path, 0, &mut pids)?;
    }
    Ok(pids)
}

/// Kills every process in the group and below; returns how many there were.
pub(in crate::runtime) fn kill(path: &Path) -> Result<usize, RuntimeError> {
    let pids = processes(path)?;
    if pids.is_empty() {
        return Ok(0);
    }
    let all = path.join(KILL);
    match File::options().write(true).open(&all) {
        Ok(mut file) => file.write_all(b"1").map_err(io("write", all))?,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            for &pid in &pids {
                kill_member(path, pid)?;
            }
        }
        // Removed in between.
        Err(source) if source.raw_os_error() == Some(libc::ENODEV) => {}
        Err(source) => return Err(io("open", all)(source)),
    }
    Ok(pids.len())
}

/// Kills one process unless it left the group: its number may have been given to another since.
fn kill_member(path: &Path, pid: i32) -> Result<(), RuntimeError> {
    let Some(process) = ProcessId::of(pid)? else { return Ok(()) };
    let Some(handle) = process.open()? else { return Ok(()) };
    // The handle pins the number; what it names must still be a member.
    if processes(path)?.contains(&pid) {
        handle.signal(libc::SIGKILL)?;
    }
    Ok(())
}

/// Removes the group and all below; false where something still holds one of them.
pub(in crate::runtime) fn remove(path: &Path) -> Result<bool, RuntimeError> {
    let Some(folder) = open(path)? else { return Ok(true) };
    let mut gone = remove_below(&folder, path, 0)?;
    drop(folder);
    match std::fs::remove_dir(path) {
        Ok(()) => {}
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) if is_busy(source.raw_os_error()) => gone = false,
        Err(source) => return Err(io("remove cgroup", path)(source)),
    }
    Ok(gone)
}

fn remove_below(folder: &OwnedFd, path: &Path, depth: usize) -> Result<bool, RuntimeError> {
    let mut gone = true;
    for name in children(folder, path, depth)? {
        if let Some(child) = open_child(folder, &name, path)? {
            gone &= remove_below(&child, path, depth + 1)?;
        }
        match unlinkat(folder, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) if is_busy(Some(errno as i32)) => gone = false,
            Err(errno) => return Err(io("remove cgroup below", path)(errno.into())),
        }
    }
    Ok(gone)
}

fn is_busy(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EBUSY | libc::ENOTEMPTY))
}

fn collect(folder: &OwnedFd, path: &Path, depth: usize, pids: &mut BTreeSet<i32>) -> Result<(), RuntimeError> {
    match openat(folder, PROCS, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(fd) => {
            let mut text = String::new();
            match File::from(fd).take(MAX_PROCS_BYTES).read_to_string(&mut text) {
                Ok(_) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0)),
                // A threaded group (v2) lists its processes in its root only; ENODEV: just removed.
                Err(source) if matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV)) => {}
                Err(source) => return Err(io("read cgroup.procs below", path)(source)),
            }
        }
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        Err(errno) => return Err(io("open cgroup.procs below", path)(errno.into())),
    }
    for name in children(folder, path, depth)? {
        if let Some(child) = open_child(folder, &name, path)? {
            collect(&child, path, depth + 1, pids)?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<Option<OwnedFd>, RuntimeError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file.into())),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io("open cgroup", path)(source)),
    }
}

fn open_child(folder: &OwnedFd, name: &CString, path: &Path) -> Result<Option<OwnedFd>, RuntimeError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(folder, name.as_c_str(), flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(io("open cgroup below", path)(errno.into())),
    }
}

/// Names of the groups directly below.
fn children(folder: &OwnedFd, path: &Path, depth: usize) -> Result<Vec<CString>, RuntimeError> {
    if depth >= MAX_DEPTH {
        return Err(RuntimeError::Corrupt { path: path.into(), reason: format!("nested deeper than {MAX_DEPTH}") });
    }
    let listed = || -> nix::Result<Vec<CString>> {
        // Opened anew: a duplicate would share its position with `folder`.
        let mut entries = Dir::from_fd(openat(folder, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)?;
        let mut names = Vec::new();
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    };
    match listed() {
        Ok(names) => Ok(names),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(Vec::new()),
        Err(errno) => Err(io("list cgroup below", path)(errno.into())),
    }
}
