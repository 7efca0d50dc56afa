//! Taking a snapshot.

use super::{SnapshotInput, check_unused, lock};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::{container::operation, server::pool},
    store::{
        StoreError,
        container::ContainerRow,
        snapshot::{self, SnapshotRow, SnapshotState},
    },
};
use hoody_protocol::{
    id::{ContainerId, SnapshotId},
    operation::OperationKind,
    time::now_ms,
};

/// Random characters of a generated name.
const NAME_SUFFIX_CHARS: usize = 8;

/// Takes a snapshot of the container as it is now, running or not.
pub async fn create(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: SnapshotInput,
) -> Result<(ContainerRow, SnapshotRow), ServiceError> {
    let wanted = input.check()?;
    let mut tx = app.store.begin().await?;
    let mut row = lock(&mut tx, caller, id).await?;
    pool::check_not_full(&mut tx, &row).await?;
    let held = snapshot::list(&mut *tx, id).await?;
    let most = app.config.snapshot_max_per_container;
    if held.len() >= most as usize {
        return Err(ServiceError::Conflict(format!(
            "the container has {} of at most {most} snapshots: delete one first",
            held.len()
        )));
    }
    check_unused(&held, wanted.name.as_deref(), "name")?;
    check_unused(&held, wanted.alias.as_deref(), "alias")?;
    let (new, now) = (SnapshotId::generate(), now_ms() as i64);
    let snapshot = SnapshotRow {
        id: new,
        container: id,
        name: wanted.name.unwrap_or_else(|| generated_name(new)),
        alias: wanted.alias,
        state: SnapshotState::Creating,
        size_bytes: 0,
        created_at: now,
        expires_at: wanted.lifetime.map(|lifetime| now.saturating_add(lifetime)),
        last_used_at: None,
    };
    let kind = OperationKind::CreateSnapshot { snapshot: new };
    let begun = operation::begin(app, &mut tx, &mut row, Some(caller.user), kind).await?;
    if !begun.offline {
        snapshot::insert(&mut tx, &snapshot).await?;
    }
    hoody_fault::point!("snapshot.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("snapshot.committed");
    operation::finish(app, &row, begun, "kept").await?;
    let snapshot = snapshot::get(&app.store, new).await?.ok_or(ServiceError::NotFound("snapshot"))?;
    Ok((row, snapshot))
}

/// `snap-1f0c93ab`.
fn generated_name(id: SnapshotId) -> String {
    // The last half of an id is random.
    let id = id.to_string();
    format!("snap-{}", &id[id.len() - NAME_SUFFIX_CHARS..])
}
