//! Deleting a snapshot, because somebody asks or its time has come.

use super::{check_present, lock, ready};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::container::operation::{self, Begun},
    store::{
        StoreError,
        container::{self, ContainerRow},
        snapshot::{self, SnapshotRow},
    },
};
use hoody_protocol::{
    id::{ContainerId, UserId},
    operation::OperationKind,
};
use sqlx::AnyConnection;

/// Deletes the snapshot and waits for the outcome.
pub async fn delete(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    called: &str,
) -> Result<(ContainerRow, SnapshotRow), ServiceError> {
    let mut tx = app.store.begin().await?;
    let mut row = lock(&mut tx, caller, id).await?;
    let snapshot = ready(snapshot::list(&mut *tx, id).await?, called)?;
    let begun = begin(app, &mut tx, &mut row, &snapshot, Some(caller.user)).await?;
    hoody_fault::point!("snapshot.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("snapshot.committed");
    operation::finish(app, &row, begun, "deleted").await?;
    Ok((row, snapshot))
}

/// Has a snapshot deleted whose time has come; somebody else may just have. What does not come to pass is tried again
/// with the next round.
pub async fn expire(app: &App, due: &SnapshotRow) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some(mut row) = container::lock(&mut tx, due.container).await? else { return Ok(()) };
    if check_present(&row).is_err() || !row.server_info.online {
        return Ok(());
    }
    match begin(app, &mut tx, &mut row, due, None).await {
        // Deleted meanwhile, or a copy of it is being made.
        Err(ServiceError::Conflict(_)) => return Ok(()),
        begun => begun.map(drop)?,
    }
    tx.commit().await.map_err(StoreError::from)?;
    app.nodes.wake(row.server);
    Ok(())
}

async fn begin(
    app: &App,
    connection: &mut AnyConnection,
    row: &mut ContainerRow,
    snapshot: &SnapshotRow,
    user: Option<UserId>,
) -> Result<Begun, ServiceError> {
    if snapshot::is_being_copied(connection, row.spec.id, snapshot.id).await? {
        return Err(ServiceError::Conflict("a container is being made from the snapshot: wait until it is".to_owned()));
    }
    let kind = OperationKind::DeleteSnapshot { snapshot: snapshot.id };
    let begun = operation::begin(app, connection, row, user, kind).await?;
    if !begun.offline && !snapshot::begin_deletion(connection, snapshot.id).await? {
        return Err(ServiceError::Conflict("the snapshot was deleted meanwhile".to_owned()));
    }
    Ok(begun)
}
