//! How far a file system is that is on its way to a container.

use crate::{api::time::rfc3339, service::container::Transferred};
use serde::Serialize;
use utoipa::ToSchema;

/// A file system on its way to a container. Bytes, rate and time left are known while it moves.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TransferData {
    id: String,
    /// `copy`: the container is made from it; `sync`: it takes the place of what the container has.
    purpose: &'static str,
    /// `waiting`, `moving`, or `arrived`.
    state: &'static str,
    source_container_id: String,
    /// Bytes that have been taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_done: Option<u64>,
    /// Bytes that it will come to, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
    /// Seconds that are left at this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_seconds: Option<u64>,
    /// Why the last try failed; it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    requested_at: String,
}

impl From<Transferred> for TransferData {
    fn from(found: Transferred) -> Self {
        let Transferred { moving, progress } = found;
        let state = match (moving.kept, &progress) {
            (true, _) => "arrived",
            (false, Some(_)) => "moving",
            (false, None) => "waiting",
        };
        let progress = progress.as_ref().filter(|_| !moving.kept);
        Self {
            id: moving.transfer.id.to_string(),
            purpose: if moving.sync { "sync" } else { "copy" },
            state,
            source_container_id: moving.transfer.source_container.to_string(),
            bytes_done: progress.map(|progress| progress.bytes),
            bytes_total: progress.and_then(|progress| progress.total),
            bytes_per_second: progress.and_then(|progress| progress.rate).map(|rate| rate as u64),
            eta_seconds: progress.and_then(|progress| progress.eta_s).map(|seconds| seconds.ceil() as u64),
            error: moving.failure.map(|cause| cause.message.to_string()),
            requested_at: rfc3339(moving.created_at),
        }
    }
}
