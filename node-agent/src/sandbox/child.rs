//! The agent's side of a confined process: its end, and what it said.

use nix::libc;
use std::{
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Child,
    time::{Duration, Instant},
};

/// Waits for the process's end; false where the deadline comes first.
pub(crate) fn wait(child: &Child, deadline: Duration) -> io::Result<bool> {
    // SAFETY: no pointer is passed; the process is ours and not reaped yet, so the id is its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us.
    let process = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is passed, and the count says so.
        let ready = unsafe { libc::poll(&mut poll, 1, left.as_millis().try_into().unwrap_or(i32::MAX)) };
        match ready {
            0 if left.is_zero() => return Ok(false),
            0 => {}
            1.. => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// What is in the pipe of a process that has ended; it cannot have left others that hold the pipe open.
pub(crate) fn read_up_to(pipe: Option<impl Read>, bytes: u64) -> Vec<u8> {
    let mut data = Vec::new();
    if let Some(pipe) = pipe {
        // What was read until an error is all there is.
        let _ = pipe.take(bytes).read_to_end(&mut data);
    }
    data
}
