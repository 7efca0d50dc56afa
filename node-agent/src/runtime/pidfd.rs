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

    /// True from when nothing can keep it from ending: it was killed, is on its way out, or has ended. The first process
    /// of a pid namespace can stay so for long, until all others are dead and waited for; none can begin there any more.
    pub(super) fn is_ending(&self) -> Result<bool, RuntimeError> {
        let Some(stat) = read_stat(self.pid)?.filter(|stat| stat.start_ticks == self.start_ticks) else {
            return Ok(true);
        };
        Ok(stat.ended || stat.exiting || is_killed(self.pid)?)
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
    exiting: bool,
    start_ticks: u64,
}

/// Set from the beginning of a process's end (`PF_EXITING`, include/linux/sched.h).
const EXITING: u64 = 0x4;

fn read_stat(pid: i32) -> Result<Option<Stat>, RuntimeError> {
    read(pid, "stat", parse_stat)
}

/// True where the kernel has been asked to kill it and it has not noticed yet.
fn is_killed(pid: i32) -> Result<bool, RuntimeError> {
    Ok(read(pid, "status", parse_killed)?.unwrap_or(true))
}

/// A file of the process in `/proc`; `None` where there is no such process.
fn read<T>(pid: i32, name: &str, parse: fn(&[u8]) -> Option<T>) -> Result<Option<T>, RuntimeError> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    match std::fs::read(&path) {
        Ok(text) => match parse(&text) {
            Some(parsed) => Ok(Some(parsed)),
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
    // `state` is field 3, the flags are field 9, the start time is field 22.
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let start_ticks = fields.nth(12)?.parse().ok()?;
    Some(Stat { ended: matches!(state, "Z" | "X" | "x"), exiting: flags & EXITING != 0, start_ticks })
}

/// Whether SIGKILL waits for the thread or for the process (`proc_pid_status(5)`). The name's line escapes new lines.
fn parse_killed(text: &[u8]) -> Option<bool> {
    let kill = 1_u64 << (libc::SIGKILL - 1);
    let mut pending = std::str::from_utf8(text)
        .ok()?
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")))
        .map(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let (own, shared) = (pending.next()??, pending.next()??);
    Some((own | shared) & kill != 0)
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
    fn one_that_is_on_its_way_out_is_recognised() {
        let stat = |flags: u64| format!("7 (a) S 1 2 3 4 5 {flags} {} 4242", ["0"; 12].join(" "));
        assert!(parse_stat(stat(0x0040_0104).as_bytes()).unwrap().exiting);
        assert!(!parse_stat(stat(0x0040_0100).as_bytes()).unwrap().exiting);
        let status = |own: &str, shared: &str| format!("Name:\ta\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0\n");
        let none = "0000000000000000";
        for (own, shared, killed) in [
            (none, none, false),
            ("0000000000000100", none, true),
            (none, "0000000000004100", true),
            (none, "fffffffffffffeff", false),
        ] {
            assert_eq!(parse_killed(status(own, shared).as_bytes()), Some(killed), "{own} {shared}");
        }
        assert_eq!(parse_killed(b"Name:\ta\n"), None);
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
        assert!(!process.is_ending().unwrap());
        assert!(handle.signal(libc::SIGKILL).unwrap());
        assert!(process.is_ending().unwrap(), "from the moment of the signal");
        assert!(handle.ended_within(Duration::from_secs(5)).await.unwrap());
        assert!(!process.is_alive().unwrap());
        child.wait().unwrap();
        assert!(process.open().unwrap().is_none());
    }
}
