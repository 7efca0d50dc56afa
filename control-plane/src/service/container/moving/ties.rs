//! What keeps a container on its server: whatever would be lost, or would not be the same on another one.

use crate::{
    error::ServiceError,
    service::snapshot as snapshots,
    store::{container::ContainerRow, image_pull::PullState, moves, sync},
};
use hoody_protocol::container::{Cause, Desired};
use sqlx::AnyConnection;

/// Codes of what passes by itself.
const PASSING: [&str; 2] = ["not_made", "being_copied"];

/// True where the tie is one that passes by itself.
pub(super) fn passes(tie: &Cause) -> bool {
    PASSING.contains(&&*tie.code)
}

/// Why the container, which is locked, cannot be moved; `None`: it can.
pub(super) async fn of(connection: &mut AnyConnection, row: &ContainerRow) -> Result<Option<Cause>, ServiceError> {
    let tie = |code: &str, message: &str| Ok(Some(Cause::new(code, message)));
    if row.pull.as_ref().is_some_and(|pull| pull.state == PullState::Failed) {
        return tie("has_no_image", "the container's image could not be pulled: start it to try again");
    }
    if let Err(error) = snapshots::check_present(row) {
        return tie("not_made", &error.to_string());
    }
    if matches!(row.spec.desired, Desired::Paused { .. }) {
        return tie(
            "paused",
            "the container is paused, and what is in its memory would be lost: resume or stop it first",
        );
    }
    if row.spec.ramdisk.is_some() {
        return tie("has_ramdisk", "the container has a RAM disk, whose content would be lost: turn it off first");
    }
    if !row.spec.shares.is_empty() {
        return tie("has_shares", "the container mounts folders of others on its server: end those shares first");
    }
    let ties = moves::ties(connection, row.spec.id).await?;
    if ties.mounted_by > 0 {
        return tie("has_shares", "other containers mount folders of the container: end those shares first");
    }
    if ties.copied_by > 0 || sync::is_under_way(connection, row.spec.id).await? {
        return tie("being_copied", "the container is just being copied or synced: wait until that is done");
    }
    Ok(None)
}
