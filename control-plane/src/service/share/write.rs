//! Making, changing, ending and accepting shares.

use super::{
    SHARE,
    apply::{apply, follow, lock, told},
    input::{Change, ChoiceInput, CreateInput, NewShare, UpdateInput},
    standing::{self, View},
};
use crate::{
    access::{
        Level,
        object::{self, InProject},
    },
    app::App,
    caller::Caller,
    error::ServiceError,
    event::{Actor, EventKind},
    service::container::{Progress, authorise},
    store::{
        StoreError, Transaction,
        container::{self, ContainerRow},
        event, reservation,
        share::{self, Choice, Share, Target},
    },
};
use hoody_protocol::{
    container::Desired,
    id::{ContainerId, ShareId},
    share::MAX_SHARES,
    time::now_ms,
};
use std::collections::BTreeMap;

/// Shares of one container's folders.
const MAX_OF_SOURCE: usize = 64;
/// Shares of one account that wait for one target to accept them.
const MAX_OFFERED: usize = 32;
const TARGET: &str = "share's target";

/// Shares a folder of the container and waits until it is mounted.
pub async fn create(
    app: &App,
    caller: &Caller,
    source: ContainerId,
    input: CreateInput,
) -> Result<(View, Progress), ServiceError> {
    let wanted = input.check()?;
    let mut tx = app.store.begin().await?;
    let concerned = lock(&mut tx, source, wanted.target).await?;
    let row = editable(&mut tx, caller, source).await?;
    let accepted = may_use(&mut tx, caller, &row, wanted.target).await?;
    check_room(&mut tx, &row, wanted.target, accepted).await?;
    let share = new_share(caller, &row, wanted, accepted);
    share::insert(&mut tx, &share).await?;
    let actor = Actor::User(caller.user);
    let changed = apply(&mut tx, &concerned, actor).await?;
    event::insert(&mut tx, &told(&share, EventKind::StorageShareCreated, actor)).await?;
    commit(tx).await?;
    let progress = follow(app, changed).await?;
    Ok((standing::view(app, share).await?, progress))
}

/// Changes what the input names, at once where it is mounted.
pub async fn update(
    app: &App,
    caller: &Caller,
    source: ContainerId,
    id: ShareId,
    input: UpdateInput,
) -> Result<(View, Progress), ServiceError> {
    // Who may not change the container learns nothing of its shares.
    let row = container::get(&app.store, source).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, Level::Edit).await?;
    let change = input.check()?;
    let of_source = |share: &Share| share.source == source;
    let known = share::get(app.store.reader(), id).await?.filter(of_source).ok_or(ServiceError::NotFound(SHARE))?;
    let mut tx = app.store.begin().await?;
    let concerned = lock(&mut tx, source, known.target).await?;
    let row = editable(&mut tx, caller, source).await?;
    let before = share::lock(&mut tx, id).await?.filter(of_source).ok_or(ServiceError::NotFound(SHARE))?;
    let mut share = changed_share(&before, change);
    if share == before {
        tx.rollback().await.map_err(StoreError::from)?;
        return Ok((standing::view(app, share).await?, Progress::Answered));
    }
    // Who accepted it did so for the place that it had: from elsewhere in the target it could be any program there.
    if share.place.is_some() && share.place != before.place && !may_use(&mut tx, caller, &row, share.target).await? {
        return Err(ServiceError::Forbidden(
            "only who may change the target moves a share in it: leave out mount_path, or make another share"
                .to_owned(),
        ));
    }
    share.updated_at = now_ms() as i64;
    share::update(&mut tx, &share).await?;
    let actor = Actor::User(caller.user);
    let changed = apply(&mut tx, &concerned, actor).await?;
    let switched = match (before.enabled, share.enabled) {
        (false, true) => Some(EventKind::StorageShareEnabled),
        (true, false) => Some(EventKind::StorageShareDisabled),
        _ => None,
    };
    let same_otherwise = Share { enabled: before.enabled, updated_at: before.updated_at, ..share.clone() } == before;
    let updated = (!same_otherwise).then_some(EventKind::StorageShareUpdated);
    for kind in [updated, switched].into_iter().flatten() {
        event::insert(&mut tx, &told(&share, kind, actor)).await?;
    }
    commit(tx).await?;
    let progress = follow(app, changed).await?;
    Ok((standing::view(app, share).await?, progress))
}

/// Ends the share: it is unmounted wherever it is.
pub async fn delete(app: &App, caller: &Caller, id: ShareId) -> Result<Progress, ServiceError> {
    let known = share::get(app.store.reader(), id).await?.ok_or(ServiceError::NotFound(SHARE))?;
    let mut tx = app.store.begin().await?;
    let concerned = lock(&mut tx, known.source, known.target).await?;
    let row = container::lock(&mut tx, known.source).await?.ok_or(ServiceError::NotFound(SHARE))?;
    authorise(&mut *tx, caller, &row, Level::Edit).await.map_err(|error| match error {
        // Existence is private.
        ServiceError::NotFound(_) => ServiceError::NotFound(SHARE),
        other => other,
    })?;
    let share = share::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound(SHARE))?;
    share::delete(&mut tx, id).await?;
    let actor = Actor::User(caller.user);
    let changed = apply(&mut tx, &concerned, actor).await?;
    event::insert(&mut tx, &told(&share, EventKind::StorageShareDeleted, actor)).await?;
    commit(tx).await?;
    follow(app, changed).await
}

/// Whether the container takes the share: it is mounted, or unmounted, at once.
pub async fn choose(
    app: &App,
    caller: &Caller,
    target: ContainerId,
    id: ShareId,
    input: ChoiceInput,
) -> Result<(View, Choice, Progress), ServiceError> {
    let row = container::get(&app.store, target).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, Level::Edit).await?;
    let mount = input.check()?;
    let mut tx = app.store.begin().await?;
    container::lock_all(&mut tx, &[target].into()).await?;
    let row = editable(&mut tx, caller, target).await?;
    let is_for = |share: &Share| {
        share.source != target
            && (share.target == Target::Container(target) || share.target == Target::Project(row.spec.project))
    };
    let share = share::lock(&mut tx, id).await?.filter(is_for).ok_or(ServiceError::NotFound(SHARE))?;
    let before = share::choice(&mut *tx, id, target).await?.map_or(share.accepted, |choice| choice.mount);
    if mount && !before && share::taken_by(&mut *tx, target, row.spec.project).await? >= MAX_SHARES {
        return Err(full("mount", format!("the container takes {MAX_SHARES} shares, the most it can: refuse one")));
    }
    share::choose(&mut tx, id, target, mount).await?;
    let actor = Actor::User(caller.user);
    let changed = apply(&mut tx, &[target].into(), actor).await?;
    let choice = share::choice(&mut *tx, id, target).await?.ok_or(ServiceError::NotFound(SHARE))?;
    if before != mount {
        let told = told(&share, EventKind::StorageShareMountChanged, actor);
        let told = told.with("mount", mount).with("mounting_container_id", target.to_string());
        event::insert(&mut tx, &told).await?;
    }
    commit(tx).await?;
    let progress = follow(app, changed).await?;
    Ok((standing::view(app, share).await?, choice, progress))
}

async fn commit(tx: Transaction) -> Result<(), ServiceError> {
    hoody_fault::point!("share.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("share.committed");
    Ok(())
}

/// The container, locked, where the caller may change it and it is not being deleted.
async fn editable(tx: &mut Transaction, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    let row = container::lock(tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(&mut **tx, caller, &row, Level::Edit).await?;
    if row.spec.desired == Desired::Deleted {
        return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
    }
    Ok(row)
}

/// Whether the caller may also decide for the target, which is then taken as accepting. 404 where they do not even see
/// it; 422 where it cannot be one.
async fn may_use(
    tx: &mut Transaction,
    caller: &Caller,
    source: &ContainerRow,
    target: Target,
) -> Result<bool, ServiceError> {
    let unseen = |error| match error {
        ServiceError::NotFound(_) => ServiceError::NotFound(TARGET),
        other => other,
    };
    let level = match target {
        Target::Container(id) => {
            let row = container::lock(tx, id).await?.ok_or(ServiceError::NotFound(TARGET))?;
            authorise(&mut **tx, caller, &row, Level::Read).await.map_err(unseen)?;
            let impossible = |message: String| ServiceError::Unprocessable {
                details: BTreeMap::from([("target_container_id".to_owned(), message.clone())]),
                message,
            };
            if id == source.spec.id {
                return Err(impossible("a container cannot share a folder with itself: name another".to_owned()));
            }
            if row.server != source.server {
                return Err(impossible(format!(
                    "the containers are on different servers ({} and {}): folders are shared on one server only",
                    source.server_info.name, row.server_info.name
                )));
            }
            if row.spec.desired == Desired::Deleted {
                return Err(ServiceError::Conflict("the target container is being deleted".to_owned()));
            }
            authorise(&mut **tx, caller, &row, Level::Edit).await
        }
        Target::Project(id) => {
            let (project, _) = reservation::lock_project(tx, id).await?.ok_or(ServiceError::NotFound(TARGET))?;
            let (owner, realms) = (project.owner, &project.realm_ids[..]);
            let object = InProject { what: "project", project: id, owner, realms, for_operators: false };
            object::in_project(&mut **tx, caller, object, Level::Read).await.map_err(unseen)?;
            object::in_project(&mut **tx, caller, object, Level::Edit).await
        }
    };
    match level {
        Ok(()) => Ok(true),
        Err(ServiceError::Forbidden(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// 422 where the source shares, or the target takes or is offered, as much as it can.
async fn check_room(
    tx: &mut Transaction,
    source: &ContainerRow,
    target: Target,
    accepted: bool,
) -> Result<(), ServiceError> {
    if share::of_source(&mut **tx, source.spec.id).await?.len() >= MAX_OF_SOURCE {
        let message = format!("the container has {MAX_OF_SOURCE} shares, the most it can have: delete one");
        return Err(full("shares", message));
    }
    let field = match target {
        Target::Container(_) => "target_container_id",
        Target::Project(_) => "target_project_id",
    };
    if !accepted {
        // Whoever is offered something is not kept from having shares of their own by it.
        if share::offered_by(&mut **tx, source.spec.owner, target).await? >= MAX_OFFERED {
            let message = format!("{MAX_OFFERED} of your shares wait for the target to accept them: delete one");
            return Err(full(field, message));
        }
        return Ok(());
    }
    let taken = match target {
        Target::Container(id) => {
            let project = container::lock(tx, id).await?.map_or(source.spec.project, |row| row.spec.project);
            share::taken_by(&mut **tx, id, project).await?
        }
        // What is for the project alone: its containers' own come on top, and the oldest are mounted.
        Target::Project(id) => share::taken_by_all_of(&mut **tx, id).await?,
    };
    if taken >= MAX_SHARES {
        let message =
            format!("the target takes {MAX_SHARES} shares, the most it can: delete one for it, or refuse one");
        return Err(full(field, message));
    }
    Ok(())
}

fn full(field: &str, message: String) -> ServiceError {
    ServiceError::Unprocessable { details: BTreeMap::from([(field.to_owned(), message.clone())]), message }
}

fn new_share(caller: &Caller, row: &ContainerRow, wanted: NewShare, accepted: bool) -> Share {
    let now = now_ms() as i64;
    Share {
        id: ShareId::generate(),
        source: row.spec.id,
        path: wanted.path,
        target: wanted.target,
        readonly: wanted.readonly,
        alias: wanted.alias,
        place: wanted.place,
        label: wanted.label,
        description: wanted.description,
        enabled: wanted.enabled,
        accepted,
        expires_at: wanted.expires.map(|expiry| expiry.at_ms),
        expires_in_ms: wanted.expires.is_some_and(|expiry| expiry.in_ms),
        expiry_notified: false,
        expired: false,
        created_by: caller.user,
        created_at: now,
        updated_at: now,
        owner: row.spec.owner,
        project: row.spec.project,
        server: row.server,
        realms: row.realm_ids.clone(),
    }
}

fn changed_share(before: &Share, change: Change) -> Share {
    let mut share = before.clone();
    share.readonly = change.readonly.unwrap_or(share.readonly);
    share.enabled = change.enabled.unwrap_or(share.enabled);
    share.alias = change.alias.unwrap_or(share.alias);
    share.place = change.place.unwrap_or(share.place);
    share.label = change.label.unwrap_or(share.label);
    share.description = change.description.unwrap_or(share.description);
    if let Some(expires) = change.expires {
        share.expires_at = expires.map(|expiry| expiry.at_ms);
        share.expires_in_ms = expires.is_some_and(|expiry| expiry.in_ms);
        if share.expires_at != before.expires_at {
            // Whatever was over or nearly so begins anew.
            (share.expired, share.expiry_notified) = (false, false);
        }
    }
    share
}
