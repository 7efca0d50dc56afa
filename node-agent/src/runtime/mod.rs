//! Processes: an OCI runtime (runc by default) run with conmon, so that containers outlive the agent
//! and leave their exit code behind.

pub(crate) mod cgroup;
mod command;
mod config;
mod conmon;
mod create;
mod delete;
mod error;
mod etc;
mod exec;
mod first_process;
mod inspect;
mod kvm;
mod layout;
mod mend;
mod mounts;
mod oci;
mod pidfd;
mod record;
mod rootfs;
mod seccomp;
mod shared_counts;
mod spawn;
mod spec;
mod start;
mod user;
mod view;

pub use config::{DiskRates, RuntimeConfig};
pub use error::RuntimeError;
pub use exec::{Attend, AttendRequest, Attended, Console, ExecRequest, Outputs, monitor as exec_monitor};
pub(crate) use inspect::fuzzing as inspection_fuzzing;
pub use kvm::usable as kvm_usable;
pub use oci::OciRuntime;
pub(crate) use shared_counts::raise as raise_shared_counts;
pub(crate) use user::fuzzing as user_fuzzing;

use crate::storage::IdRange;
use async_trait::async_trait;
use hoody_protocol::{container::Limits, id::ContainerId, inspection::Inspection};
use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

/// All that a container's processes are made from.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The container.
    pub id: ContainerId,
    /// The mounted root file system.
    pub rootfs: PathBuf,
    /// Its ids.
    pub ids: IdRange,
    /// Host name inside.
    pub hostname: String,
    /// Command line of the first process; empty: the image's `/sbin/init` where it has one, otherwise
    /// an init that waits and reaps.
    pub command: Vec<String>,
    /// Environment of the first process, complete.
    pub env: BTreeMap<String, String>,
    /// Working directory; empty: `/`.
    pub workdir: String,
    /// `uid[:gid]` or `name[:group]`; empty: root.
    pub user: String,
    /// Signal that asks the first process to end, for example `SIGTERM`; empty: `SIGTERM`, or
    /// `SIGRTMIN+3` where the first process is systemd.
    pub stop_signal: String,
    /// Limits.
    pub limits: Limits,
    /// Name servers for `/etc/resolv.conf`.
    pub dns: Vec<Ipv4Addr>,
    /// The node's `/dev/kvm` appears in it.
    pub kvm: bool,
    /// The host's folder that appears at `/mnt/shares`, with all that is ever mounted in it.
    pub shares: Option<PathBuf>,
    /// The mounted RAM disk that appears at `/ramdisk`.
    pub ramdisk: Option<PathBuf>,
}

/// What the runtime says of a container's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// None was made, or it ended before it was ever started. Remains of making it may lie around:
    /// [`Runtime::create`] and [`Runtime::delete`] clear them.
    Absent,
    /// Made, namespaces present, first process not started.
    Created {
        /// Host pid of the waiting first process.
        pid: i32,
    },
    /// The first process runs.
    Running {
        /// Host pid of the first process.
        pid: i32,
    },
    /// The first process is frozen.
    Paused {
        /// Host pid of the first process.
        pid: i32,
    },
    /// The first process ended; [`Runtime::delete`] clears the rest.
    Exited {
        /// Its exit code (128 + signal where a signal ended it); `None` where it was lost.
        code: Option<i32>,
        /// True where the kernel ended it, or another process of it, for using too much memory.
        oom_killed: bool,
    },
}

/// What became of the files of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mended {
    /// Files were missing and were written again.
    pub files: bool,
    /// The rates of the disks were not in force and are again.
    pub disk_rates: bool,
    /// Conmon runs. Without it the output is lost, and the exit code will be: nothing but a new start mends that.
    pub monitored: bool,
}

/// Cgroup measurements. What the kernel does not offer is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupStats {
    /// Processor time used, nanoseconds.
    pub cpu_usage_ns: Option<u64>,
    /// Memory in use.
    pub memory_bytes: Option<u64>,
    /// Highest memory use.
    pub memory_peak_bytes: Option<u64>,
    /// Swap in use.
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u32>,
}

/// What [`Runtime::expect`] gives.
#[derive(Debug, Default)]
pub struct Expected {
    _joins: Option<cgroup::Ready>,
}

/// Processes of containers. Calls are idempotent; what is already so counts as success.
#[async_trait]
pub trait Runtime: Send + Sync + std::fmt::Debug {
    /// A container will be created in a moment: makes the kernel ready for it beside the caller, until the value is
    /// dropped. Saves time, and nothing else.
    fn expect(&self) -> Expected {
        Expected::default()
    }
    /// Makes namespaces and cgroup and prepares the first process without starting it; returns its
    /// host pid. Where it is already made, that one's pid.
    async fn create(&self, bundle: &Bundle) -> Result<i32, RuntimeError>;
    /// Starts the first process of a created container.
    async fn start(&self, id: ContainerId) -> Result<(), RuntimeError>;
    /// What there is. A running container whose record was lost is found by what the runtime program knows.
    async fn state(&self, id: ContainerId) -> Result<Process, RuntimeError>;
    /// Writes again what is missing of a running container's files.
    async fn mend(&self, bundle: &Bundle) -> Result<Mended, RuntimeError>;
    /// Asks the first process to end with its stop signal (`force` false), or kills every process of
    /// the container (`force` true). Thaws it first where it is paused.
    async fn signal_stop(&self, id: ContainerId, force: bool) -> Result<(), RuntimeError>;
    /// Freezes every process.
    async fn pause(&self, id: ContainerId) -> Result<(), RuntimeError>;
    /// Thaws every process.
    async fn resume(&self, id: ContainerId) -> Result<(), RuntimeError>;
    /// Removes what is left of an exited, created or half-made container: runtime state, bundle,
    /// conmon, cgroups. Kills what still runs. What it wrote is kept: see [`Self::forget`].
    async fn delete(&self, id: ContainerId) -> Result<(), RuntimeError>;
    /// Removes what is kept of a container beyond its runs: what its processes wrote. For the end of the container.
    async fn forget(&self, id: ContainerId) -> Result<(), RuntimeError>;
    /// Returns when the first process has ended, at once where there is none.
    async fn wait(&self, id: ContainerId) -> Result<(), RuntimeError>;
    /// Changes the limits of a container that runs. Memory below what it uses is refused
    /// ([`RuntimeError::MemoryInUse`]): on cgroup v2 the kernel would end its processes.
    async fn update_limits(&self, id: ContainerId, limits: &Limits) -> Result<(), RuntimeError>;
    /// How many processes the kernel ended for lack of memory since the container was made.
    async fn oom_kills(&self, id: ContainerId) -> Result<u64, RuntimeError>;
    /// Measurements.
    async fn stats(&self, id: ContainerId) -> Result<CgroupStats, RuntimeError>;
    /// What runs inside; `None` where no first process runs. May be asked beside other calls, and answers or fails
    /// within three seconds.
    async fn inspect(&self, id: ContainerId) -> Result<Option<Inspection>, RuntimeError>;
    /// Every container of which the runtime, conmon or a cgroup holds anything, for finding leftovers.
    async fn inventory(&self) -> Result<Vec<ContainerId>, RuntimeError>;
}
