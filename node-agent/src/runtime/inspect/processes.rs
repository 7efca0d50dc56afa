//! A container's processes, each by its open folder below `/proc`.
//!
//! A number alone may be another's by the time it is used, also a process's of the node or of another tenant. An open
//! folder is of one process for ever: reading through it fails once that has ended. So the members of the group are
//! listed, opened, and listed again: what is in both lists was opened while it was a member.

use super::{Names, RuntimeError, read};
use crate::storage::IdRange;
use hoody_protocol::{
    bounded::Text,
    inspection::{MAX_PROCESSES, ProcessInfo, SocketOwner},
};
use nix::fcntl::{OFlag, open, readlinkat};
use std::{
    collections::{BTreeSet, HashMap},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Processes that are held open at once: a descriptor each.
const MAX_HELD: usize = 512;
/// Enough for a `status` with every line that is read here.
const MAX_STATUS_BYTES: u64 = 4096;
/// More of a command line than is told.
const MAX_CMDLINE_BYTES: u64 = 1024;
const MAX_STAT_BYTES: u64 = 1024;
/// The user for ids that the container does not have (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: u32 = 65_534;

/// A process, held.
pub(super) struct Held {
    /// Its number on the node.
    pid: i32,
    pub(super) folder: OwnedFd,
}

/// What is held.
pub(super) struct Processes {
    held: Vec<Held>,
    count: usize,
    ids: IdRange,
}

impl Processes {
    /// Opens the processes that `members` lists.
    pub(super) fn open(
        members: impl Fn() -> Result<BTreeSet<i32>, RuntimeError>,
        ids: IdRange,
    ) -> Result<Self, RuntimeError> {
        let folder = |pid: i32| {
            let path = format!("/proc/{pid}");
            open(path.as_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        };
        let before = members()?;
        let opened: Vec<Held> =
            before.iter().take(MAX_HELD).filter_map(|&pid| Some(Held { pid, folder: folder(pid).ok()? })).collect();
        let after = members()?;
        let held = opened.into_iter().filter(|held| after.contains(&held.pid)).collect();
        Ok(Self { held, count: after.len(), ids })
    }

    /// How many processes the container has.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.count).unwrap_or(u32::MAX)
    }

    /// Those that are held.
    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    /// The first process, where it is held.
    pub(super) fn first(&self, pid: i32) -> Option<&Held> {
        self.held.iter().find(|held| held.pid == pid)
    }

    /// The processes in the container's own numbers; true where there are more than are told.
    pub(super) fn describe(&self, names: &Names) -> (Vec<ProcessInfo>, bool) {
        let boot = boot_time();
        let statuses: Vec<(&Held, Status)> =
            self.held.iter().filter_map(|held| Some((held, Status::of(held)?))).collect();
        let inside: HashMap<i32, u32> = statuses.iter().map(|(held, status)| (held.pid, status.pid)).collect();
        let told = statuses.iter().take(MAX_PROCESSES).map(|(held, status)| ProcessInfo {
            pid: status.pid,
            parent: inside.get(&status.parent).copied().unwrap_or(0),
            user: names.of(inside_id(self.ids, status.uid)),
            name: Text::printable(&status.name),
            args: args(held),
            state: Text::printable(&status.state),
            memory_bytes: status.memory_bytes,
            started_at: read(&held.folder, "stat", MAX_STAT_BYTES)
                .and_then(|stat| started_after(&String::from_utf8_lossy(&stat)))
                .map_or(0, |after| (boot + after).as_millis() as u64),
        });
        let told: Vec<ProcessInfo> = told.collect();
        let more = self.count > told.len() && self.held.len() > MAX_PROCESSES || self.count > MAX_HELD;
        (told, more)
    }
}

/// What a process is told as where it has a socket open.
pub(super) fn owner(held: &Held) -> Option<SocketOwner> {
    let status = Status::of(held)?;
    let path = readlinkat(&held.folder, "exe").map(|path| Text::printable(&path.to_string_lossy()));
    Some(SocketOwner {
        pid: status.pid,
        name: Text::printable(&status.name),
        args: args(held),
        path: path.unwrap_or_default(),
    })
}

/// The container's id for a node's.
pub(super) fn inside_id(ids: IdRange, id: u32) -> u32 {
    id.checked_sub(ids.first).filter(|id| *id < IdRange::LENGTH).unwrap_or(OVERFLOW)
}

fn args(held: &Held) -> Text<512> {
    let line = read(&held.folder, "cmdline", MAX_CMDLINE_BYTES).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    Text::printable(line.trim_end_matches('\0').replace('\0', " ").as_str())
}

/// What is read of `/proc/<pid>/status`, proc_pid_status(5).
struct Status {
    name: String,
    state: String,
    /// Its number in the container.
    pid: u32,
    /// Its parent's number on the node.
    parent: i32,
    uid: u32,
    memory_bytes: u64,
}

impl Status {
    fn of(held: &Held) -> Option<Self> {
        let text = read(&held.folder, "status", MAX_STATUS_BYTES)?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name comes first, with line ends escaped by the kernel: no other line can be forged in it.
        let field = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            lines.next().map(str::trim)
        };
        let first = |key: &str| field(key)?.split_whitespace().next();
        Some(Self {
            name: field("Name")?.to_owned(),
            state: first("State")?.to_owned(),
            // From the node's namespace inwards; the container's is the second. A process that is entering has only one.
            pid: field("NSpid")?.split_whitespace().nth(1)?.parse().ok()?,
            parent: first("PPid")?.parse().ok()?,
            uid: first("Uid")?.parse().ok()?,
            // A process that has ended and waits for its parent has no memory.
            memory_bytes: first("VmRSS").and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024),
        })
    }
}

/// How long after the boot a process was started: field 22 of proc_pid_stat(5), in ticks. The name before it is in
/// parentheses and may hold some itself.
fn started_after(stat: &str) -> Option<Duration> {
    let fields = stat.rsplit_once(')')?.1;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let per_second = u64::try_from(per_second).ok().filter(|hertz| *hertz > 0)?;
    Some(Duration::from_millis(ticks.checked_mul(1000)? / per_second))
}

/// When the node booted, since 1970.
fn boot_time() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let up = std::fs::read_to_string(Path::new("/proc/uptime")).ok();
    let up = up.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    now.saturating_sub(Duration::try_from_secs_f64(up).unwrap_or_default())
}

/// Any text as what the kernel tells of a process, for fuzzing: the tenant has chosen its name.
pub(super) fn fuzzing(text: &str) {
    let _ = (Status::parse(text), started_after(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_the_containers_numbers() {
        let text = "Name:\tsh\\nUid:\t0\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t900\nPid:\t900\nPPid:\t800\n\
            Uid:\t100033\t100033\t100033\t100033\nNSpid:\t900\t7\t1\nVmRSS:\t    12 kB\n";
        let status = Status::parse(text).unwrap();
        assert_eq!((status.pid, status.parent, status.uid, status.memory_bytes), (7, 800, 100_033, 12 << 10));
        assert_eq!((status.name.as_str(), status.state.as_str()), ("sh\\nUid:\t0", "S"));
        assert!(Status::parse("Name:\tx\nState:\tR\nPPid:\t1\nUid:\t0\nNSpid:\t900\n").is_none(), "not inside");
        assert!(Status::parse("").is_none());
    }

    #[test]
    fn ids_outside_of_the_range_are_nobodys() {
        let ids = IdRange { first: 100_000 };
        assert_eq!([99_999, 100_000, 165_535, 165_536].map(|id| inside_id(ids, id)), [65_534, 0, 65_535, 65_534]);
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let line = "7 (a) R 1 (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4200 20";
        let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap() as u64;
        assert_eq!(started_after(line), Some(Duration::from_millis(4_200_000 / hertz)));
        for bad in ["", "7 (a", "7 (a) S 1 2", "7 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -1"] {
            assert_eq!(started_after(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_members_before_and_after_are_held() {
        let own = std::process::id() as i32;
        let calls = std::cell::Cell::new(0);
        let members = || {
            calls.set(calls.get() + 1);
            // The second process left the group, and its number may be another's.
            Ok(if calls.get() == 1 { BTreeSet::from([1, own]) } else { BTreeSet::from([own]) })
        };
        let held = Processes::open(members, IdRange { first: 100_000 }).unwrap();
        assert_eq!(held.held.iter().map(|held| held.pid).collect::<Vec<_>>(), [own]);
        assert_eq!(held.count(), 1);
        // This process is not in a namespace of its own: it is described as nothing.
        assert!(held.describe(&Names::default()).0.is_empty());
    }
}
