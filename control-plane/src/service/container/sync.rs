//! Syncing a copy with what it was copied from: its root file system becomes what the origin's is now. The transfer goes on
//! after the answer ([`crate::nodes`] has it had); once all of it is there, an operation on the copy's node puts it in
//! place. What the copy had is kept as a snapshot.

use super::{authorise, moving, operation, transfers};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    service::{server::pool, snapshot as snapshots},
    store::{
        StoreError,
        container::{self, ContainerRow},
        snapshot::{self, SnapshotRow, SnapshotState},
        sync::{self, Sync},
        transfer::{self, Transfer},
    },
};
use hoody_protocol::{
    container::{Cause, Desired},
    id::{ContainerId, SnapshotId, TransferId},
    operation::OperationKind,
    time::now_ms,
    transfer::{DivergenceQuery, DivergenceReply},
};
use std::{collections::BTreeSet, time::Duration};

/// The time a node has to compare a container with what it was made from.
const COMPARE_DEADLINE: Duration = Duration::from_secs(60);
/// How long the snapshot is kept that a sync takes, unless the next sync's takes its place.
const SNAPSHOT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Random characters of its name.
const NAME_SUFFIX_CHARS: usize = 8;

/// What becomes of changes that the copy has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IfDiverged {
    /// They are kept as a snapshot.
    #[default]
    Keep,
    /// The sync is refused.
    Refuse,
}

/// A sync that has begun: of which container, with which.
#[derive(Debug)]
pub struct Begun {
    /// The copy.
    pub container: ContainerId,
    /// What it was copied from.
    pub source: ContainerId,
}

/// Begins to sync the container with what it was copied from.
pub async fn sync(app: &App, caller: &Caller, id: ContainerId, changes: IfDiverged) -> Result<Begun, ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, Level::Edit).await?;
    snapshots::check_present(&row)?;
    let from = origin_of(&row).ok_or_else(|| {
        ServiceError::Conflict("the container is no copy: only a copy has something to sync with".into())
    })?;
    let source = container::get(&app.store, from).await?.ok_or_else(gone)?;
    check_source(app, caller, &source).await?;
    for row in [&row, &source] {
        if !row.server_info.online {
            return Err(ServiceError::Unavailable(format!(
                "server {} is offline: nothing was synced, and nothing will be; try again when it is back",
                row.server_info.name
            )));
        }
    }
    transfers::check_reachable(app, row.server, source.server).await?;
    if changes == IfDiverged::Refuse {
        refuse_diverged(app, &row).await?;
    }
    begin(app, caller, id, from).await?;
    app.nodes.wake_for_syncs(row.server);
    Ok(Begun { container: id, source: from })
}

fn origin_of(row: &ContainerRow) -> Option<ContainerId> {
    row.attributes.copied_from.or(row.spec.origin.map(|origin| origin.container))
}

fn gone() -> ServiceError {
    ServiceError::Conflict("the container that it was copied from is gone".to_owned())
}

/// Whoever syncs reads all of the source, as whoever copies does.
async fn check_source(app: &App, caller: &Caller, source: &ContainerRow) -> Result<(), ServiceError> {
    authorise(app.store.reader(), caller, source, Level::Edit).await.map_err(|error| match error {
        ServiceError::NotFound(_) => {
            ServiceError::Forbidden("the container that it was copied from is not yours to read".to_owned())
        }
        other => other,
    })?;
    if source.spec.desired == Desired::Deleted {
        return Err(gone());
    }
    snapshots::check_present(source).map_err(|_| {
        ServiceError::Conflict("the container that it was copied from is being made: wait until it is".to_owned())
    })
}

/// 409 where the copy was changed since it was made or synced last; on doubt it was.
async fn refuse_diverged(app: &App, row: &ContainerRow) -> Result<(), ServiceError> {
    let refused = |why: &str| {
        Err(ServiceError::Conflict(format!("{why}: sync without if_diverged=refuse to keep its changes as a snapshot")))
    };
    let Some(base) = transfer::newest_kept(app.store.reader(), row.spec.id, None).await? else {
        return refused("whether the container was changed since it was copied is not known");
    };
    let query = DivergenceQuery { container: row.spec.id, base: base.id };
    match app.nodes.ask::<_, DivergenceReply>(row.server, &query, COMPARE_DEADLINE).await {
        Ok(DivergenceReply::Same) => Ok(()),
        Ok(DivergenceReply::Diverged) => refused("the container was changed since it was copied or synced"),
        Ok(DivergenceReply::Failed(_)) => refused("whether the container was changed since it was copied is not known"),
        Err(None) => Err(ServiceError::Elsewhere(row.server_info.name.clone())),
        Err(Some(error)) => {
            tracing::warn!(server = %row.server, error = &error as &dyn std::error::Error, "compare a container");
            Err(ServiceError::NodeTimeout)
        }
    }
}

/// Writes the sync down.
async fn begin(app: &App, caller: &Caller, id: ContainerId, from: ContainerId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    container::lock_all(&mut tx, &BTreeSet::from([id, from])).await?;
    let row = container::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    let source = container::lock(&mut tx, from).await?.ok_or_else(gone)?;
    authorise(&mut *tx, caller, &row, Level::Edit).await?;
    snapshots::check_present(&row)?;
    moving::check_arrived(&mut tx, &row).await?;
    moving::check_arrived(&mut tx, &source).await?;
    if source.spec.desired == Desired::Deleted {
        return Err(gone());
    }
    if sync::is_under_way(&mut tx, id).await? {
        return Err(ServiceError::Conflict("the container is being synced: wait until it is".to_owned()));
    }
    pool::check_not_full(&mut tx, &row).await?;
    let most = app.config.snapshot_max_per_container as usize;
    let held = snapshot::list(&mut *tx, id).await?.len().saturating_sub(sync::snapshots(&mut tx, id).await?);
    if held >= most {
        return Err(ServiceError::Conflict(format!(
            "the container has {held} of at most {most} snapshots, and a sync keeps what was before as one: delete one first"
        )));
    }
    let newest = transfer::newest_kept(&mut *tx, id, Some(from)).await?.map(|newest| newest.id);
    let base = newest.filter(|_| row.server != source.server);
    transfers::check_room(&mut tx, &row, newest).await?;
    if row.server != source.server {
        transfers::check_room(&mut tx, &source, newest).await?;
    }
    let transfer = Transfer {
        id: TransferId::generate(),
        container: id,
        target: row.server,
        source_container: from,
        source: source.server,
        snapshot: None,
        base,
    };
    let sync = Sync { transfer, user: Some(caller.user), created_at: now_ms() as i64 };
    sync::insert(&mut tx, &row, &sync).await?;
    hoody_fault::point!("sync.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("sync.committed");
    Ok(())
}

/// All of it is at the container's node: has it put in place.
pub(crate) async fn received(app: &App, arrived: &Sync) -> Result<(), ServiceError> {
    let Transfer { id, container, .. } = arrived.transfer;
    hoody_fault::point!("sync.received");
    let mut tx = app.store.begin().await?;
    let Some(mut row) = container::lock(&mut tx, container).await? else { return Ok(()) };
    if row.spec.desired == Desired::Deleted {
        return Ok(());
    }
    if !row.server_info.online {
        return Err(ServiceError::Unavailable("the server has gone offline".to_owned()));
    }
    let (kept, now) = (SnapshotId::generate(), now_ms() as i64);
    let origin = arrived.is_local().then_some(arrived.transfer.source_container);
    let kind = OperationKind::Sync { transfer: id, snapshot: kept, origin };
    let begun = operation::begin(app, &mut tx, &mut row, arrived.user, kind).await?;
    if !sync::begin(&mut tx, id, begun.id(), now).await? {
        // It was begun before, or is over.
        return Ok(());
    }
    let suffix = kept.to_string();
    let snapshot = SnapshotRow {
        id: kept,
        container,
        name: format!("before-sync-{}", &suffix[suffix.len() - NAME_SUFFIX_CHARS..]),
        alias: None,
        state: SnapshotState::Creating,
        size_bytes: 0,
        created_at: now,
        expires_at: Some(now.saturating_add(SNAPSHOT_LIFETIME.as_millis() as i64)),
        last_used_at: None,
    };
    snapshot::insert(&mut tx, &snapshot).await?;
    sync::mark_snapshot(&mut tx, kept).await?;
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("sync.begun");
    app.nodes.changes.announce(container);
    app.nodes.wake(row.server);
    Ok(())
}

/// It cannot be had: the container stays as it is.
pub(crate) async fn failed(app: &App, sync: &Sync, cause: &Cause) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some(row) = container::lock(&mut tx, sync.transfer.container).await? else { return Ok(()) };
    sync::fail(&mut tx, &row, sync, cause, now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.nodes.changes.announce(sync.transfer.container);
    Ok(())
}

/// What it was to be the difference from is gone: all of it is sent.
pub(crate) async fn make_whole(app: &App, sync: &Sync) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    sync::make_whole(&mut tx, sync.transfer.id).await?;
    Ok(tx.commit().await.map_err(StoreError::from)?)
}
