//! What runs inside a container right now: asked by the control plane, answered from what the node sees. All
//! texts are a tenant's: bounded, and [`Text::printable`].

use crate::{
    bounded::{List, Text},
    id::ContainerId,
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

/// Processes that are described; there may be more.
pub const MAX_PROCESSES: usize = 256;
/// Listening sockets that are described.
pub const MAX_SOCKETS: usize = 256;
/// Services that are described.
pub const MAX_SERVICES: usize = 256;

/// Asks what runs in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectionQuery {
    /// The container.
    pub container: ContainerId,
}

/// The answer to [`InspectionQuery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InspectionReply {
    /// No first process runs, or the node does not hold the container.
    NotRunning,
    /// What runs.
    Running(Box<Inspection>),
    /// The node could not find out, or is busy with others.
    Failed(crate::container::Cause),
}

/// What runs in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inspection {
    /// Processes, those with the lowest numbers.
    pub processes: List<ProcessInfo, MAX_PROCESSES>,
    /// How many processes there are.
    pub process_count: u32,
    /// Sockets that wait for others: TCP that listens, UDP that is not connected.
    pub sockets: List<SocketInfo, MAX_SOCKETS>,
    /// Services of systemd; `None` where the first process is another, is frozen, or did not answer in time.
    pub services: Option<List<ServiceInfo, MAX_SERVICES>>,
    /// True where there is more than is told.
    pub truncated: bool,
}

/// A process. Numbers are as its container sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its number.
    pub pid: u32,
    /// Its parent's; 0 where that is outside.
    pub parent: u32,
    /// The user's name in the container's `/etc/passwd`, or the number.
    pub user: Text<64>,
    /// Its name.
    pub name: Text<64>,
    /// Its command line, with spaces between the arguments.
    pub args: Text<512>,
    /// The kernel's letter, proc_pid_stat(5): `R`, `S`, `D`, `Z`, `T`…
    pub state: Text<4>,
    /// Resident memory.
    pub memory_bytes: u64,
    /// When it was started.
    pub started_at: UnixMs,
}

/// A socket that waits for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketInfo {
    /// `tcp`, `tcp6`, `udp` or `udp6`.
    pub protocol: Text<8>,
    /// The address it is bound to.
    pub ip: std::net::IpAddr,
    /// The port.
    pub port: u16,
    /// Who made it: a name, or the number.
    pub user: Text<64>,
    /// A process that has it open, where one was found.
    pub owner: Option<SocketOwner>,
}

/// A process that has a socket open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOwner {
    /// Its number inside.
    pub pid: u32,
    /// Its name.
    pub name: Text<64>,
    /// Its command line.
    pub args: Text<512>,
    /// The path of its program inside.
    pub path: Text<256>,
}

/// A service of systemd, in its words: systemctl(1), org.freedesktop.systemd1(5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// For example `ssh.service`.
    pub unit: Text<256>,
    /// What its author calls it.
    pub description: Text<256>,
    /// `loaded`, `not-found`, `masked`…
    pub load: Text<32>,
    /// `active`, `inactive`, `failed`…
    pub active: Text<32>,
    /// `running`, `exited`, `dead`…
    pub sub: Text<32>,
    /// `enabled`, `disabled`, `static`…; empty: not told.
    pub enabled: Text<32>,
    /// What its vendor wants; empty: not told.
    pub preset: Text<32>,
    /// Its main process inside.
    pub main_pid: Option<u32>,
    /// The file it is defined in; empty: none.
    pub fragment_path: Text<256>,
    /// Files that change it, with spaces between; empty: none.
    pub drop_in: Text<256>,
    /// Where it is documented; empty: not told.
    pub docs: Text<256>,
    /// Its control group inside; empty: none.
    pub control_group: Text<256>,
    /// Memory in use.
    pub memory_bytes: Option<u64>,
    /// Processor time used, nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// How often systemd has started it again.
    pub restarts: Option<u64>,
    /// When its state last changed.
    pub since: Option<UnixMs>,
    /// When it last became active.
    pub active_since: Option<UnixMs>,
}
