//! From shares to specifications: what a container mounts is made anew from the rows in the transaction that changes
//! them. Locks are taken in one order: the project, the containers by id, the share.

use crate::{
    app::App,
    error::ServiceError,
    event::{Actor, EventKind, NewEvent, container::changes},
    service::container::{Progress, renew, settle, write},
    store::{
        StoreError,
        container::{self, ContainerRow},
        event, reservation,
        share::{self, Share, Target},
    },
};
use futures::future::join_all;
use hoody_protocol::{
    bounded::Text,
    container::Desired,
    id::ContainerId,
    share::{MAX_SHARES, ShareMount},
    time::now_ms,
};
use sqlx::AnyConnection;
use std::collections::{BTreeSet, HashSet};

/// What the container is to mount, from the rows as they are.
pub(in crate::service) async fn mounts(
    connection: &mut AnyConnection,
    row: &ContainerRow,
) -> Result<Vec<ShareMount>, StoreError> {
    let spec = &row.spec;
    if spec.desired == Desired::Deleted {
        return Ok(Vec::new());
    }
    let shares = share::mountable(connection, spec.id, spec.project, row.server, now_ms() as i64).await?;
    let mut names = HashSet::new();
    let mounts = shares.into_iter().take(MAX_SHARES).map(|share| {
        let id = share.id.to_string();
        // The oldest of one alias has it, others go by their ids.
        let alias = share.alias.filter(|alias| names.insert(alias.clone()));
        ShareMount {
            id: share.id,
            source: share.source,
            path: Text::truncated(share.path),
            name: Text::truncated(alias.unwrap_or(id)),
            place: share.place.map(Text::truncated),
            readonly: share.readonly,
            until: share.expires_at.and_then(|at| u64::try_from(at).ok()),
        }
    });
    Ok(mounts.collect())
}

/// Locks what a share of `source` for `target` concerns, and the source; gives the containers concerned.
pub(super) async fn lock(
    connection: &mut AnyConnection,
    source: ContainerId,
    target: Target,
) -> Result<BTreeSet<ContainerId>, ServiceError> {
    if let Target::Project(project) = target {
        // Whoever adds a container to it asks for this lock too.
        reservation::lock_project(connection, project).await?.ok_or(ServiceError::NotFound("share's target"))?;
    }
    let concerned: BTreeSet<_> = share::concerned(&mut *connection, source, target).await?.into_iter().collect();
    let mut all = concerned.clone();
    all.insert(source);
    container::lock_all(connection, &all).await?;
    Ok(concerned)
}

/// Makes the specifications of these containers, which are locked, say what the rows say; gives those that changed.
pub(in crate::service) async fn apply(
    connection: &mut AnyConnection,
    containers: &BTreeSet<ContainerId>,
    actor: Actor,
) -> Result<Vec<ContainerRow>, ServiceError> {
    let mut changed = Vec::new();
    for id in containers {
        let Some(mut row) = container::lock(connection, *id).await? else { continue };
        let mounts = mounts(connection, &row).await?;
        if row.spec.desired == Desired::Deleted || mounts[..] == row.spec.shares[..] {
            continue;
        }
        let before = row.clone();
        row.spec.shares = mounts.try_into().map_err(ServiceError::internal)?;
        renew(connection, &mut row).await?;
        write(connection, &mut row, before.spec.version).await?;
        event::insert_all(connection, &changes(&before, &row, actor)).await?;
        changed.push(row);
    }
    Ok(changed)
}

/// Before a container is locked to be deleted or moved: locks it and the containers that its shares concern.
pub(in crate::service) async fn lock_with_targets(
    connection: &mut AnyConnection,
    source: ContainerId,
) -> Result<BTreeSet<ContainerId>, StoreError> {
    let mut targets = BTreeSet::new();
    for share in share::of_source(&mut *connection, source).await? {
        targets.extend(share::concerned(&mut *connection, source, share.target).await?);
    }
    let mut all = targets.clone();
    all.insert(source);
    container::lock_all(connection, &all).await?;
    Ok(targets)
}

/// Ends the shares of a container that is being deleted; gives the containers that mounted them. What others share with
/// it goes with its row.
pub(in crate::service) async fn release(
    connection: &mut AnyConnection,
    source: ContainerId,
    targets: &BTreeSet<ContainerId>,
    actor: Actor,
) -> Result<Vec<ContainerRow>, ServiceError> {
    for share in share::of_source(&mut *connection, source).await? {
        share::delete(connection, share.id).await?;
        event::insert(connection, &told(&share, EventKind::StorageShareDeleted, actor)).await?;
    }
    apply(connection, targets, actor).await
}

/// An event about the share, in the record of its source.
pub(super) fn told(share: &Share, kind: EventKind, actor: Actor) -> NewEvent {
    let optional = |id: Option<String>| id.map_or(serde_json::Value::Null, Into::into);
    NewEvent::new(kind, share.id, Some(share.owner), actor)
        .in_project(share.project)
        .in_container(share.source)
        .in_realms(&share.realms)
        .with("source_path", share.path.as_str())
        .with("mode", share.mode())
        .with("alias", optional(share.alias.clone()))
        .with("mount_path", optional(share.place.clone()))
        .with("target_container_id", optional(share.target.container().map(|id| id.to_string())))
        .with("target_project_id", optional(share.target.project().map(|id| id.to_string())))
}

/// Wakes the servers of containers whose specifications changed, and waits for them as long as a change is waited for.
pub(super) async fn follow(app: &App, changed: Vec<ContainerRow>) -> Result<Progress, ServiceError> {
    changed.iter().for_each(|row| app.nodes.wake(row.server));
    let mut progress = Progress::Answered;
    for settled in join_all(changed.into_iter().map(|row| settle(app, row))).await {
        match settled {
            Ok((_, Progress::Answered)) => {}
            Ok((_, slower)) => progress = slower,
            // Deleted meanwhile.
            Err(ServiceError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(progress)
}
