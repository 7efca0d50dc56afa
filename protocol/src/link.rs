//! The control stream: hello, its answer, heartbeats; the commands of the control plane, and its questions.

use crate::{
    bounded::{List, Text},
    container::{Cause, ContainerSpec, State, StatusReport},
    egress::MAX_ALLOWED_NETWORKS,
    id::{ContainerId, ServerId},
    operation::OperationOutcome,
    time::UnixMs,
    version::{ProtocolRange, SpecVersion},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Containers of one node.
pub const MAX_INVENTORY: usize = 4096;
/// Journal entries in one batch of reports.
pub const MAX_REPORTS: usize = 256;

/// The agent's first message on the control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions the agent speaks.
    pub protocol: ProtocolRange,
    /// Version of the agent.
    pub agent_version: Text<64>,
    /// The kernel's boot id: changes with every boot.
    pub boot_id: Text<64>,
    /// Random, made anew by every process of the agent: tells two agents with one identity from one that
    /// connects again. Absent in agents before it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Text<64>>,
    /// What the server is and has.
    pub facts: NodeFacts,
    /// What the agent holds.
    pub inventory: List<InventoryEntry, MAX_INVENTORY>,
    /// Lines of the agent's journal that were damaged and are lost; 0, and absent, where there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub journal_lost: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a server is and has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Host name.
    pub hostname: Text<255>,
    /// Machine architecture in OCI terms, for example `amd64`.
    pub architecture: Text<32>,
    /// Kernel release.
    pub kernel: Text<128>,
    /// Operating system, for people.
    pub os: Text<128>,
    /// Processor model, for people.
    pub cpu_model: Text<128>,
    /// Processor cores that containers may use.
    pub cpu_cores: u32,
    /// Memory that containers may use.
    pub memory_bytes: u64,
    /// Size of the storage pool.
    pub disk_bytes: u64,
    /// True where containers can be given `/dev/kvm`: it is there and the kernel's KVM answers.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kvm: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn no_networks(networks: &List<IpNet, MAX_ALLOWED_NETWORKS>) -> bool {
    networks.is_empty()
}

/// One container that the agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// The container.
    pub container: ContainerId,
    /// The newest specification that the agent persisted.
    pub version: SpecVersion,
    /// The container's state.
    pub state: State,
    /// Sequence of the last specification or operation that the agent persisted.
    pub sequence: u64,
}

/// The control plane's answer to the hello. Only after `Accepted` is the link up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HelloReply {
    /// The link is up.
    Accepted {
        /// Protocol version both sides speak from now on.
        protocol: u16,
        /// Who the agent is.
        server: ServerId,
        /// The control plane's clock.
        now: UnixMs,
        /// Pause between heartbeats and batches of measurements.
        heartbeat_ms: u64,
        /// Networks beyond the public internet that hosts which tenants name may be in, as the operator allows.
        #[serde(default, skip_serializing_if = "no_networks")]
        allowed_networks: List<IpNet, MAX_ALLOWED_NETWORKS>,
    },
    /// The link will not come up; `retry` says whether trying again can help.
    Refused {
        /// Why.
        cause: Cause,
        /// False: only an operator can help.
        retry: bool,
    },
}

/// Sent by the agent on the control stream at the asked pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The agent's clock.
    pub now: UnixMs,
    /// Journal entries not acknowledged yet.
    pub unacknowledged: u32,
}

/// The agent's answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandReply {
    /// Persisted: it will be done, across crashes.
    Accepted,
    /// A newer specification, or one with this version, is already held.
    Superseded {
        /// The version held.
        held: SpecVersion,
    },
    /// The operation was done before: here is the first outcome.
    Done(OperationOutcome),
    /// Not accepted; nothing changed.
    Refused(Cause),
}

/// Asks the agent for the specification that it holds of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecQuery {
    /// The container.
    pub container: ContainerId,
}

/// The answer to [`SpecQuery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecReply {
    /// The specification as persisted; `None` where the agent holds no such container.
    pub spec: Option<ContainerSpec>,
}

/// Asks the agent to renew its certificate now, and with it what it trusts: the control plane's authority
/// is being replaced. Answered with [`CommandReply::Accepted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalOrder {}

/// A batch of journal entries, oldest first; the agent keeps them until acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportBatch {
    /// The entries.
    pub entries: List<ReportEntry, MAX_REPORTS>,
}

/// One journal entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportEntry {
    /// Position in the agent's journal; grows.
    pub position: u64,
    /// What happened.
    pub report: Report,
}

/// What a journal entry says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly every report is a status")]
pub enum Report {
    /// A container changed state.
    Status(StatusReport),
    /// An operation ended.
    Outcome(OperationOutcome),
}

impl Report {
    /// The container it is about.
    pub fn container(&self) -> ContainerId {
        match self {
            Self::Status(status) => status.container,
            Self::Outcome(outcome) => outcome.container,
        }
    }
}

/// Everything up to `position` is stored; the agent forgets it and never sends it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAck {
    /// Position of the last stored entry.
    pub position: u64,
}

/// The answer to a message that the receiver does not know or expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub cause: Cause,
}
