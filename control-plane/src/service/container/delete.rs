//! Deleting a container: a tombstone, which the node confirms when nothing is left. Works from every state.

use super::{
    authorise,
    change::{Progress, renew, settle, write},
};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    event::Actor,
    service::share,
    store::{
        StoreError,
        container::{self, ContainerRow, Status},
        operation,
        status_log::{self, Trigger},
    },
};
use hoody_protocol::{
    container::{Cause, Desired},
    id::ContainerId,
    time::now_ms,
};

/// How far a deletion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Nothing is left.
    Done,
    /// The node is at it, or does it when it is back.
    Pending(Progress),
}

/// Deletes the container and waits for its node.
pub async fn delete(app: &App, caller: &Caller, id: ContainerId) -> Result<Deletion, ServiceError> {
    let mut tx = app.store.begin().await?;
    let targets = share::lock_with_targets(&mut tx, id).await?;
    let mut row = container::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(&mut *tx, caller, &row, Level::Delete).await?;
    if row.server_info.status == "revoked" || row.pull.is_some() {
        // The node is never let in again, or never heard of it: nobody has anything to confirm.
        container::purge(&mut tx, id).await?;
        tx.commit().await.map_err(StoreError::from)?;
        app.nodes.measurements.forget(id);
        app.nodes.changes.announce(id);
        return Ok(Deletion::Done);
    }
    let mut unshared = Vec::new();
    if row.deleted_at.is_none() {
        let now = now_ms() as i64;
        let read = row.spec.version;
        row.spec.desired = Desired::Deleted;
        row.spec.shares = Default::default();
        row.deleted_at = Some(now);
        status_log::transition(&mut tx, &mut row, Status::Deleting, Trigger::User(caller.user), None, now).await?;
        let cause = Cause::new("deleted", "the container was deleted");
        operation::expire_all(&mut tx, id, &cause, now).await?;
        renew(&mut tx, &mut row).await?;
        write(&mut tx, &mut row, read).await?;
        unshared = share::release(&mut tx, id, &targets, Actor::User(caller.user)).await?;
        hoody_fault::point!("tombstone.writing");
        tx.commit().await.map_err(StoreError::from)?;
        hoody_fault::point!("tombstone.committed");
    } else {
        tx.rollback().await.map_err(StoreError::from)?;
    }
    app.nodes.wake(row.server);
    unshared.iter().for_each(|row| app.nodes.wake(row.server));
    wait(app, row).await
}

async fn wait(app: &App, row: ContainerRow) -> Result<Deletion, ServiceError> {
    let id = row.spec.id;
    match settle(app, row).await {
        Ok((_, progress)) => Ok(Deletion::Pending(progress)),
        Err(ServiceError::NotFound(_)) => {
            app.nodes.measurements.forget(id);
            Ok(Deletion::Done)
        }
        Err(error) => Err(error),
    }
}
