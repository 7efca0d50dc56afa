//! Processes named so that a reused number is never mistaken: pid and start time, held by a pidfd
//! while acted upon (`pidfd_open(2)`, `proc_pid_stat(5)`).

use super::{RuntimeError, error::io};
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// A process on this boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    /// Its number on the host.
    pub(super) pid: i32,
    /// When it started, clock ticks since boot.
    pub(super) start_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now, unless it has ended.
    pub(super) fn of(pid: i32) -> Result<Option<Self>, RuntimeError> {
        Ok(read_stat(pid)?.filter(|stat| !stat.ended).map(|stat| Self { pid, start_ticks: stat.start_ticks }))
    }

    /// True while it runs; a zombie has ended.
    pub(super) fn is_alive(&self) -> Result<bool, RuntimeError> {
        Ok(Self::of(self.pid)? == Some(*self))
    }

    /// A handle on the process; `None` where it has ended.
    pub(super) fn open(&self) -> Result<Option<PidFd>, RuntimeError> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        if raw < 0 {
            let source = io::Error::last_os_error();
            return match source.raw_os_error() {
                Some(libc::ESRCH) => Ok(None),
                _ => Err(RuntimeError::Process { action: "open", pid: self.pid, source }),
            };
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
        // Only now is the number pinned: what it names must still be the process that is meant.
        Ok(self.is_alive()?.then_some(PidFd { fd, pid: self.pid }))
    }

    /// Sends a signal; true where the process was there to receive it.
    pub(super) fn signal(&self, signal: i32) -> Result<bool, RuntimeError> {
        match self.open()? {
            Some(handle) => handle.signal(signal),
            None => Ok(false),
        }
    }
}

/// A handle on a process.
#[derive(Debug)]
pub(super) struct PidFd {
    fd: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Sends a signal; false where the process has ended.
    pub(super) fn signal(&self, signal: i32) -> Result<bool, RuntimeError> {
        let no_info: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: the descriptor is open for the call, and a null siginfo means "as kill(2) would".
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, no_info, 0) };
        if answer == 0 {
            return Ok(true);
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::ESRCH) => Ok(false),
            _ => Err(RuntimeError::Process { action: "signal", pid: self.pid, source }),
        }
    }

    /// Readable once the process has ended.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns when the process has ended.
    pub(super) async fn ended(self) -> Result<(), RuntimeError> {
        let pid = self.pid;
        let failed = |source| RuntimeError::Process { action: "wait for", pid, source };
        // SAFETY: an `OwnedFd` is open and names the same descriptor until it is dropped, which only
        // the `AsyncFd` does.
        let registered = unsafe { AsyncFd::register_with_interest(self.fd, Interest::READABLE) };
        let fd = registered.map_err(|error| failed(error.into_parts().1))?;
        let _ready = fd.readable().await.map_err(failed)?;
        Ok(())
    }

    /// As [`Self::ended`]; false where the time ran out first.
    pub(super) async fn ended_within(self, limit: Duration) -> Result<bool, RuntimeError> {
        match tokio::time::timeout(limit, self.ended()).await {
            Ok(result) => result.map(|()| true),
            Err(_elapsed) => Ok(false),
        }
    }
}

struct Stat {
    ended: bool,
    start_ticks: u64,
}

fn read_stat(pid: i32) -> Result<Option<Stat>, RuntimeError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    match std::fs::read(&path) {
        Ok(text) => match parse_stat(&text) {
            Some(stat) => Ok(Some(stat)),
            None => Err(RuntimeError::Corrupt { path, reason: "unknown format".into() }),
        },
        Err(source) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(source) => Err(io("read", path)(source)),
    }
}

/// The process's name (second field) is chosen by the process and may hold anything, even `)`: fields
/// are counted from the last one.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let rest = &text[text.iter().rposition(|&b| b == b')')? + 1..];
    let rest = std::str::from_utf8(rest).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // `state` is field 3, the start time field 22.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { ended: matches!(state, "Z" | "X" | "x"), start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let tail = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = parse_stat(format!("7 (a) Z 1 (b)) S {tail} 4242 23").as_bytes()).unwrap();
        assert!(!stat.ended);
        assert_eq!(stat.start_ticks, 4242);
        assert!(parse_stat(format!("7 (a) Z {tail} 4242").as_bytes()).unwrap().ended);
        assert!(parse_stat(b"7 (a) S 1 2").is_none());
        assert!(parse_stat(b"").is_none());
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let me = ProcessId::of(std::process::id() as i32).unwrap().unwrap();
        assert!(me.is_alive().unwrap());
        assert!(me.open().unwrap().is_some());
        let other = ProcessId { start_ticks: me.start_ticks + 1, ..me };
        assert!(!other.is_alive().unwrap());
        assert!(other.open().unwrap().is_none());
        assert!(!other.signal(libc::SIGKILL).unwrap());
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_seen_while_it_is_a_zombie() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = ProcessId::of(child.id() as i32).unwrap().unwrap();
        let handle = process.open().unwrap().unwrap();
        assert!(handle.signal(libc::SIGKILL).unwrap());
        assert!(handle.ended_within(Duration::from_secs(5)).await.unwrap());
        assert!(!process.is_alive().unwrap());
        child.wait().unwrap();
        assert!(process.open().unwrap().is_none());
    }
}
