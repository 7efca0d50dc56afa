//! What replicas of one control plane ask of each other: a stream to the node of a server that is linked to the other,
//! and what the other knows of servers in memory. Both are of one trust: whoever asks has looked at the caller's rights.

use crate::{
    bounded::List,
    id::{ContainerId, ExportId, ServerId, TransferId},
    stats::{ContainerStats, NodeStats},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

/// Servers, containers and transfers of one question, of each.
pub const MAX_ASKED: usize = 1024;

/// Asks for a stream to a server's node. After [`RelayReply::Opened`] it is the node's stream: what either side sends,
/// ends or breaks off is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRequest {
    /// The server.
    pub server: ServerId,
    /// What for.
    pub purpose: RelayPurpose,
}

/// What a stream to a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayPurpose {
    /// One question, or an order, and its answer.
    Question,
    /// A process, terminal or log: counted among those of the link.
    Conversation,
    /// The stream that the node will offer for this transfer, beginning with its offer.
    Transfer(TransferId),
    /// The stream that the node will offer for this export, beginning with its offer.
    Export(ExportId),
}

/// Whether there is a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayReply {
    /// What follows is the node's; for an offer: it is waited for.
    Opened,
    /// The server is not linked here.
    NotLinked,
    /// As many streams are open on the link as there may be.
    TooMany,
    /// The node did not take the stream in time.
    Late,
}

/// Asks what is known in memory. What is known comes as [`KnownReply`]s, then the stream ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownQuery {
    /// Servers whose last measurement is asked for.
    pub servers: List<ServerId, MAX_ASKED>,
    /// Containers whose last measurement is asked for.
    pub containers: List<ContainerId, MAX_ASKED>,
    /// Transfers that the other may be passing on.
    pub transfers: List<TransferId, MAX_ASKED>,
}

/// One thing that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownReply {
    /// The last measurement of a server.
    Server {
        /// The server.
        server: ServerId,
        /// What was measured.
        stats: NodeStats,
        /// When.
        age: Age,
    },
    /// The last measurement of a container.
    Container {
        /// What was measured.
        stats: Box<ContainerStats>,
        /// When.
        age: Age,
    },
    /// How far a transfer is.
    Transfer {
        /// The transfer.
        transfer: TransferId,
        /// How far it is.
        moved: Moved,
    },
}

/// When something was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    /// By the node's clock.
    pub taken_at: UnixMs,
    /// Milliseconds since it arrived, so that replicas need not agree on the clock.
    pub age_ms: u64,
}

/// How far a transfer is that a replica passes on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes that the target has taken.
    pub bytes: u64,
    /// Bytes that it will come to, about; `None`: not known.
    pub total: Option<u64>,
    /// Bytes in a second, since the stream last began; `None` before there are any.
    pub rate: Option<f64>,
    /// Seconds that are left at that rate.
    pub eta_s: Option<f64>,
}
