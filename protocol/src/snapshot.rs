//! Snapshots: which ones a node holds of a container, which ones moved with it, and what a new container is made from.

use crate::{
    bounded::List,
    container::Cause,
    id::{ContainerId, SnapshotId, TransferId},
    operation::MAX_SNAPSHOTS,
};
use serde::{Deserialize, Serialize};

/// What a new container's root file system is made from, instead of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// A container of the same server.
    pub container: ContainerId,
    /// One of its snapshots; absent: what it is when the copy is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Under which the agent keeps what the copy is made from, as it keeps what came from another server; absent: it does
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<TransferId>,
}

/// A snapshot that moved with its container from another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedSnapshot {
    /// Its id, which it keeps.
    pub id: SnapshotId,
    /// The transfer that brought it.
    pub transfer: TransferId,
}

/// Asks the agent which snapshots it holds of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotQuery {
    /// The container.
    pub container: ContainerId,
}

/// The answer to [`SnapshotQuery`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotReply {
    /// What is there, in the order of the ids.
    Held(List<HeldSnapshot, MAX_SNAPSHOTS>),
    /// It could not be found out.
    Failed(Cause),
}

/// A snapshot that a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Bytes that only it keeps; absent where the pool's accounting does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_bytes: Option<u64>,
}
