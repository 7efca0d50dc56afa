//! A container: what it should be ([`ContainerSpec`]) and what the node says it is
//! ([`StatusReport`]).

use crate::{
    bounded::{List, Map, Text},
    egress::{EgressSpec, EgressStatus},
    firewall::{FirewallSpec, MAX_RULES},
    id::{ContainerId, ProjectId, TransferId, UserId},
    image::ImageSpec,
    operation::MAX_SNAPSHOTS,
    share::{MAX_SHARES, RamdiskScope, ShareFailure, ShareMount},
    snapshot::{MovedSnapshot, Origin},
    ssh_key,
    time::UnixMs,
    version::SpecVersion,
};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Environment variables of one container.
pub const MAX_ENV: usize = 1024;
/// Name servers of one container.
pub const MAX_DNS_SERVERS: usize = 4;

/// What a container should be, whole. The node persists it and converges to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The container.
    pub id: ContainerId,
    /// Its project.
    pub project: ProjectId,
    /// Its owner; containers of different owners do not reach each other.
    pub owner: UserId,
    /// Orders specifications: older ones are refused, the same one with other content too.
    pub version: SpecVersion,
    /// Position in the container's one order of specifications and operations.
    pub sequence: u64,
    /// What state the container should be in.
    pub desired: Desired,
    /// Started again by the agent after a reboot, without the control plane.
    pub autostart: bool,
    /// Host name inside the container: one DNS label.
    pub hostname: Text<63>,
    /// The root file system it was made from. Never changes after the first specification.
    pub image: ImageSpec,
    /// Environment of the first process, over the image's own; takes effect at the next start.
    pub env: Map<Text<128>, Text<32768>, MAX_ENV>,
    /// Resource limits.
    pub limits: Limits,
    /// Name servers; empty: the node's default.
    pub dns: List<Ipv4Addr, MAX_DNS_SERVERS>,
    /// Firewall rules.
    pub firewall: FirewallSpec,
    /// Everything through a proxy, or nothing; absent: what the firewall lets pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressSpec>,
    /// A key that may log in as root, `<type> <base64>` and perhaps a remark: see [`ssh_key`]. Kept in the
    /// container's `/root/.ssh/authorized_keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_public_key: Option<Text<{ ssh_key::MAX_BYTES }>>,
    /// True: the node's `/dev/kvm` appears in the container, from its next start on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kvm: bool,
    /// Folders of other containers that appear below `/mnt/shares`, also while it runs.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub shares: List<ShareMount, MAX_SHARES>,
    /// A RAM disk appears at `/ramdisk`, from its next start on; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk: Option<RamdiskScope>,
    /// Its root file system was made from another container's; absent: from the image. Never changes after the first
    /// specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Its root file system comes from a container of another server, by this transfer; absent: from here. Never changes
    /// after the first specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferId>,
    /// What the transfer brought was this container itself on another server: it stays the machine that it was. Never
    /// changes after the first specification.
    #[serde(default, skip_serializing_if = "is_false")]
    pub moved: bool,
    /// Snapshots that moved with it: they are there before its root file system is. Never changes after the first
    /// specification.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub snapshots: List<MovedSnapshot, MAX_SNAPSHOTS>,
}

/// Bytes of an unpacked layer for each of its blob, at most: generous for what compression does to programs.
const LAYER_FACTOR: u64 = 8;

impl ContainerSpec {
    /// Bytes that its file system may take where it is received from another server: what the container may have
    /// written, and what its image was.
    pub fn received_bytes(&self) -> u64 {
        let image: u64 = self.image.layers.iter().map(|layer| layer.size.saturating_mul(LAYER_FACTOR)).sum();
        self.limits.disk_bytes.saturating_add(image)
    }

    /// What is wrong with it, for people; both sides ask before they take a specification from the other.
    pub fn check(&self) -> Result<(), &'static str> {
        let label = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.hostname.is_empty() || !self.hostname.chars().all(label) || self.hostname.starts_with('-') {
            return Err("the host name is not a DNS label");
        }
        if !self.limits.is_valid() {
            return Err("a limit is below its minimum");
        }
        if !self.image.is_consistent() {
            return Err("the image's digest is not that of its parts");
        }
        if self.firewall.ingress.len() + self.firewall.egress.len() > MAX_RULES {
            return Err("there are too many firewall rules");
        }
        self.firewall.check()?;
        if let Some(egress) = &self.egress {
            egress.check()?;
        }
        let nul = |text: &str| text.contains('\0');
        if self.env.iter().any(|(key, value)| key.is_empty() || key.contains('=') || nul(key) || nul(value)) {
            return Err("an environment variable is malformed");
        }
        if self.ssh_public_key.as_ref().is_some_and(|key| !ssh_key::is_one_line(key)) {
            return Err("the SSH key is not one line of a known type");
        }
        for (index, share) in self.shares.iter().enumerate() {
            share.check()?;
            if share.source == self.id || self.shares[..index].iter().any(|other| other.name == share.name) {
                return Err("two shares have one name, or one is of the container itself");
            }
        }
        if self.origin.is_some_and(|origin| origin.container == self.id) {
            return Err("a container is not made from itself");
        }
        if self.origin.is_some() && self.transfer.is_some() {
            return Err("a container is made from one thing");
        }
        if self.moved && self.transfer.is_none() {
            return Err("a container that was moved came by a transfer");
        }
        if !self.snapshots.is_empty() && !self.moved {
            return Err("snapshots come with a container that was moved");
        }
        match self.desired {
            Desired::Running { run: 0 } | Desired::Paused { run: 0 } => Err("start requests are counted from 1"),
            _ => Ok(()),
        }
    }
}

/// The state a container should be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// The first process runs. `run` counts the requests to start: a first process that ends by itself
    /// is not started again until the number grows.
    Running {
        /// Which start request this is, from 1.
        run: u64,
    },
    /// Running, but frozen. `run` as above.
    Paused {
        /// Which start request this is, from 1.
        run: u64,
    },
    /// No process; the root file system stays.
    Stopped {
        /// True: kill at once instead of asking the first process to end.
        force: bool,
    },
    /// The tombstone: processes, root file system, network and firewall go.
    Deleted,
}

/// Resource limits; 0 is never "unlimited" but refused by [`Limits::is_valid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Memory, swap included.
    pub memory_bytes: u64,
    /// Root file system.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Megabits per second in each direction; absent: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_mbit: Option<u32>,
}

impl Limits {
    /// The least memory a container is given.
    pub const MIN_MEMORY_BYTES: u64 = 16 << 20;
    /// The least root file system a container is given.
    pub const MIN_DISK_BYTES: u64 = 16 << 20;
    /// The least processor time a container is given.
    pub const MIN_CPU_MILLIS: u32 = 10;
    /// The fewest processes a container is given.
    pub const MIN_PIDS: u32 = 8;
    /// The highest network rate that is a limit.
    pub const MAX_NETWORK_MBIT: u32 = 400_000;

    /// True where every limit is at least its minimum and the network rate one that can be kept.
    pub fn is_valid(&self) -> bool {
        self.cpu_millis >= Self::MIN_CPU_MILLIS
            && self.memory_bytes >= Self::MIN_MEMORY_BYTES
            && self.disk_bytes >= Self::MIN_DISK_BYTES
            && self.pids >= Self::MIN_PIDS
            && self.network_mbit.is_none_or(|rate| (1..=Self::MAX_NETWORK_MBIT).contains(&rate))
    }
}

/// The state a container is in, as the node last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The image is being fetched or the root file system made.
    Creating,
    /// Root file system present, no process.
    Stopped,
    /// The first process is being started.
    Starting,
    /// The first process runs.
    Running,
    /// The first process runs and is frozen.
    Paused,
    /// The first process was asked to end.
    Stopping,
    /// The last pass could not go on; `cause` says why. Retried with growing pauses.
    Failed,
    /// Being deleted.
    Deleting,
    /// Nothing of it is left on the node.
    Deleted,
}

impl State {
    /// The lowercase word, as the wire carries it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }
}

/// Why something did not work, in a form a client may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Stable word for programs, for example `image_unavailable`.
    pub code: Text<64>,
    /// A sentence for people, without anything of the node's inside.
    pub message: Text<512>,
}

impl Cause {
    /// A cause with this code and message; both are cut to their limits.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: Text::truncated(code), message: Text::truncated(message) }
    }
}

/// A change of a container's state, journaled by the node until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The container.
    pub container: ContainerId,
    /// The specification that the node was converging to.
    pub version: SpecVersion,
    /// The state reached.
    pub state: State,
    /// True where the state is what `version` asks for: nothing remains to be done.
    pub converged: bool,
    /// Why, where the state did not come from a request: a failure, or the first process's end.
    pub cause: Option<Cause>,
    /// Exit code of the first process where it has ended.
    pub exit_code: Option<i32>,
    /// The address, once given.
    pub address: Option<Ipv4Addr>,
    /// When the first process started, while it runs.
    pub started_at: Option<UnixMs>,
    /// Set where the firewall rules of `version` could not be put in force; the rules before them
    /// still stand.
    pub firewall_error: Option<Cause>,
    /// Set where the limits of `version` could not be put in force while it runs; the limits before them
    /// still hold, and the new ones are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_error: Option<Cause>,
    /// Set where the SSH key of `version` could not be put into the container; tried again at the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key_error: Option<Cause>,
    /// Processes that the kernel ended for lack of memory since the first process started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// How its egress fares, where `version` asks for one and it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressStatus>,
    /// Shares of `version` that are not mounted while it runs; tried again.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub share_failures: List<ShareFailure, MAX_SHARES>,
    /// When the node saw it.
    pub at: UnixMs,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_empty<T, const MAX: usize>(list: &List<T, MAX>) -> bool {
    list.is_empty()
}

fn is_false(flag: &bool) -> bool {
    !flag
}
