//! Restoring a snapshot: the node stops the container, swaps its root file system, and starts it where it is to run.

use super::{lock, ready};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::container::operation,
    store::{
        StoreError,
        snapshot::{self, SnapshotRow},
    },
};
use hoody_protocol::{id::ContainerId, operation::OperationKind};

/// Makes the container what it was when the snapshot was taken, and waits for the outcome. Where it cannot be
/// started then, it is as it was before.
pub async fn restore(app: &App, caller: &Caller, id: ContainerId, called: &str) -> Result<SnapshotRow, ServiceError> {
    let mut tx = app.store.begin().await?;
    let mut row = lock(&mut tx, caller, id).await?;
    let snapshot = ready(snapshot::list(&mut *tx, id).await?, called)?;
    let kind = OperationKind::RestoreSnapshot { snapshot: snapshot.id };
    let begun = operation::begin(app, &mut tx, &mut row, Some(caller.user), kind).await?;
    hoody_fault::point!("snapshot.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("snapshot.committed");
    operation::finish(app, &row, begun, "restored").await?;
    // It may be deleted meanwhile.
    Ok(snapshot::get(&app.store, snapshot.id).await?.unwrap_or(snapshot))
}
