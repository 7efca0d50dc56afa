//! Snapshots: taken and deleted while the container does whatever it does. What a snapshot has is what was written
//! when it was taken, as after a loss of power.

use super::{
    cause, operation,
    owner::Cell,
    pass::{PassError, Settled, not_persisted},
};
use crate::{desired::record::Record, storage::StorageError};
use hoody_protocol::{
    container::Cause,
    id::{OperationId, SnapshotId},
};

/// Takes the snapshot. What fails is not tried again: whoever asked may ask again.
pub(super) async fn create(
    cell: &Cell,
    record: &Record,
    id: OperationId,
    snapshot: SnapshotId,
) -> Result<Settled, PassError> {
    match cell.context.capabilities.storage.take_snapshot(record.spec.id, snapshot).await {
        Ok(bytes) => {
            if record.discarded.contains(&snapshot) {
                let change = |record: &mut Record| record.discarded.retain(|discarded| *discarded != snapshot);
                cell.update(change).await.map_err(not_persisted)?;
            }
            operation::finish(cell, record, id, Ok(Some(bytes))).await
        }
        Err(error) => {
            let cause = failure(record, &error, "the snapshot could not be taken");
            // A call that was late may still make it.
            forget(cell, snapshot).await?;
            operation::finish(cell, record, id, Err(cause)).await
        }
    }
}

/// Deletes the snapshot; done where there is none.
pub(super) async fn delete(
    cell: &Cell,
    record: &Record,
    id: OperationId,
    snapshot: SnapshotId,
) -> Result<Settled, PassError> {
    let ended = match cell.context.capabilities.storage.delete_snapshot(record.spec.id, snapshot).await {
        Ok(()) => Ok(None),
        Err(error) => Err(failure(record, &error, "the snapshot could not be deleted")),
    };
    operation::finish(cell, record, id, ended).await
}

/// Writes down that what there is of the snapshot, or still may be, is to go.
pub(super) async fn forget(cell: &Cell, snapshot: SnapshotId) -> Result<(), PassError> {
    let change = |record: &mut Record| {
        if !record.discarded.contains(&snapshot) {
            record.discarded.push(snapshot);
        }
    };
    cell.update(change).await.map(drop).map_err(not_persisted)
}

/// Deletes what [`forget`] wrote down. What cannot be deleted now keeps nothing from running and is tried again
/// with the next pass.
pub(super) async fn discard(cell: &Cell, record: &Record) -> Result<(), PassError> {
    for snapshot in &record.discarded {
        match cell.context.capabilities.storage.delete_snapshot(record.spec.id, *snapshot).await {
            Ok(()) => {
                let change = |record: &mut Record| record.discarded.retain(|discarded| discarded != snapshot);
                cell.update(change).await.map_err(not_persisted)?;
            }
            Err(error) => tracing::warn!(container = %record.spec.id, %snapshot,
                error = &error as &dyn std::error::Error, "what is left of a snapshot was not deleted"),
        }
    }
    Ok(())
}

/// What whoever asked is told; all of it goes to the log.
pub(super) fn failure(record: &Record, error: &StorageError, message: &str) -> Cause {
    tracing::warn!(container = %record.spec.id, error = error as &dyn std::error::Error, "a snapshot operation failed");
    cause::known(error).unwrap_or_else(|| Cause::new("snapshot_failed", message))
}
