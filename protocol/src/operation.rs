//! Operations: what is asked once and is not state. The node journals the outcome and answers a replay
//! with it.

use crate::{
    container::Cause,
    id::{ContainerId, OperationId, SnapshotId, TransferId},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

/// An operation on one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRequest {
    /// Identity: the same id is never executed twice.
    pub id: OperationId,
    /// The container.
    pub container: ContainerId,
    /// Position in the container's one order of specifications and operations.
    pub sequence: u64,
    /// Milliseconds from its receipt within which the operation must begin; afterwards it is refused.
    /// A duration, because clocks differ.
    pub begin_within_ms: u64,
    /// What to do.
    pub kind: OperationKind,
}

/// The kinds of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Stop the first process and start it with the current specification.
    Restart,
    /// Keep the root file system as it is now, under this id.
    CreateSnapshot {
        /// The new snapshot.
        snapshot: SnapshotId,
    },
    /// Make the root file system what it was when the snapshot was taken: stop, swap, start. Where the container
    /// then cannot be started, everything is as it was before.
    RestoreSnapshot {
        /// The snapshot; it stays.
        snapshot: SnapshotId,
    },
    /// Delete a snapshot; done where there is none.
    DeleteSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// Make the root file system what a transfer brought: stop, keep what was, swap, start. Where the container then
    /// cannot be started, everything is as it was before.
    Sync {
        /// The transfer, which the node has.
        transfer: TransferId,
        /// What was before is kept under this id.
        snapshot: SnapshotId,
        /// The container of the same server that it was kept from; absent: it came from another server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<ContainerId>,
    },
}

/// Snapshots of one container that a node keeps.
pub const MAX_SNAPSHOTS: usize = 64;

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationOutcome {
    /// The operation.
    pub id: OperationId,
    /// The container.
    pub container: ContainerId,
    /// `None`: it was done.
    pub failure: Option<Cause>,
    /// Of a snapshot that was taken, by a sync too: bytes of its container's own that it may keep from being freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it ended.
    pub at: UnixMs,
}
