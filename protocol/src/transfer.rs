//! Transfer of a container's file system from one server to another, through the control plane.
//!
//! The target asks ([`TransferRequest`]); the control plane orders the source to send ([`SendOrder`], over the link);
//! the source offers its stream ([`TransferOffer`]). Both streams are on bulk connections. After [`TransferReply::Begin`]
//! the source writes [`TransferData`], which the control plane passes on as it is, and the target [`TransferProgress`].
//! Whoever loses its stream begins again the same way: the target says how far it is, and the source goes on there
//! where it still has what comes next, or begins anew.
//!
//! A new container's specification names the transfer that its file system comes by. For one that exists the target is
//! ordered to have the transfer ([`ReceiveOrder`], over the link); an operation then puts it in place. A container that
//! moves is not at the target until the last of its transfers is: those are ordered likewise, with the room that they
//! may take, and what is not needed any more is let go of ([`RetainOrder`]).

use crate::{
    bounded::{Bytes, List},
    container::Cause,
    id::{ContainerId, SnapshotId, TransferId},
    operation::MAX_SNAPSHOTS,
    snapshot::Origin,
    stream_digest::StreamDigest,
};
use serde::{Deserialize, Serialize};

/// Bytes of a stream in one message.
pub const PIECE_BYTES: usize = 256 << 10;
/// Bytes that may be on their way from the source's agent to the target's: the source keeps them until they are
/// taken, and so nothing between the two holds more.
pub const WINDOW: u64 = 8 << 20;
/// Bytes after which the target says that it took some.
pub const ACKNOWLEDGED_BYTES: u64 = 1 << 20;
/// Transfers of one container that others are based on.
pub const MAX_KEPT: usize = 64;
/// Priority of a transfer's streams: images go first.
pub const PRIORITY: i32 = -1;

/// Asks for a transfer, from the target's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferRequest {
    /// The transfer.
    pub transfer: TransferId,
    /// Bytes of its stream that the target has taken.
    pub offset: u64,
}

/// Orders the source's agent to send. Answered with a `CommandReply`; the stream is then offered on the bulk
/// connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOrder {
    /// The transfer: what was once kept for it is what is sent, however often that is ordered.
    pub transfer: TransferId,
    /// Whose file system.
    pub container: ContainerId,
    /// One of its snapshots; absent: as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Send the difference from what was kept for this transfer; absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<TransferId>,
    /// Bytes that the target has taken.
    pub offset: u64,
    /// Transfers of the container that others are based on: what was kept for any other may go.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub keep: List<TransferId, MAX_KEPT>,
}

fn is_empty<const MAX: usize>(kept: &List<TransferId, MAX>) -> bool {
    kept.is_empty()
}

/// Offers the stream of a transfer, from the source's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferOffer {
    /// The transfer.
    pub transfer: TransferId,
    /// Where the stream goes on: what the target has taken, or 0 where it begins anew.
    pub offset: u64,
    /// Bytes that it will come to, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// The control plane's answer to [`TransferRequest`] and [`TransferOffer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferReply {
    /// Source and target are connected.
    Begin {
        /// Where the stream goes on.
        offset: u64,
    },
    /// They are not.
    Refused {
        /// Why.
        cause: Cause,
        /// True: it may be asked for again.
        retry: bool,
    },
}

/// What the source says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferData {
    /// The next bytes.
    Piece(Bytes<PIECE_BYTES>),
    /// All bytes were sent.
    End {
        /// How many.
        bytes: u64,
        /// Their digest.
        digest: StreamDigest,
        /// Bytes of it that count as the container's own, beyond its image; absent: not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        own_bytes: Option<u64>,
    },
    /// The stream cannot be made.
    Failed(Cause),
}

/// What the target says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferProgress {
    /// So many bytes were taken, from the beginning.
    Taken(u64),
    /// Everything was carried out, verified, and is kept.
    Kept,
    /// The target cannot take it.
    Failed(Cause),
}

/// Orders the target's agent to have a transfer for a container that exists: from another server, for which it asks with
/// [`TransferRequest`], or from a container of its own. Answered with a `CommandReply` when it has it whole, `Accepted`,
/// or cannot have it, `Refused`; that may take hours. Ordered again meanwhile, both orders get the one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiveOrder {
    /// The transfer.
    pub transfer: TransferId,
    /// The container that it is for.
    pub container: ContainerId,
    /// What the stream is the difference from; absent: from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<TransferId>,
    /// What is to be kept is here; absent: it comes from another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Transfers of the container that others are based on: what was kept for any other may go.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub keep: List<TransferId, MAX_KEPT>,
    /// The container is not here: it may move here. Bytes that its file system and its snapshots may take; absent: it is
    /// here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_bytes: Option<u64>,
    /// The container stands still until it is here: it does not wait for others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub held: bool,
    /// Transfers that brought snapshots of the container, with which it moves here: they stay, each must be here, and what
    /// they take is part of `room_bytes`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub snapshots: List<TransferId, MAX_SNAPSHOTS>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Lets go of what a node keeps of a container's transfers, whether or not it holds the container. Answered with a
/// `CommandReply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainOrder {
    /// The container.
    pub container: ContainerId,
    /// Transfers that stay.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub keep: List<TransferId, MAX_KEPT>,
}

/// Asks the target's agent whether a container was changed since it was made from a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergenceQuery {
    /// The container.
    pub container: ContainerId,
    /// The transfer.
    pub base: TransferId,
}

/// The answer to [`DivergenceQuery`]. What the platform itself writes into a container is no change of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceReply {
    /// It has what it came with.
    Same,
    /// Something was written, made or removed.
    Diverged,
    /// It could not be found out.
    Failed(Cause),
}
