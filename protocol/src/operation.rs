//! Operations: what is asked once and is not state. The node journals the outcome and answers a replay
//! with it.

use crate::{
    container::Cause,
    id::{ContainerId, OperationId},
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Stop the first process and start it with the current specification.
    Restart,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationOutcome {
    /// The operation.
    pub id: OperationId,
    /// The container.
    pub container: ContainerId,
    /// `None`: it was done.
    pub failure: Option<Cause>,
    /// When it ended.
    pub at: UnixMs,
}
