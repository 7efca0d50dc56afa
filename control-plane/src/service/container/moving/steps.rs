//! The steps of a move, each one transaction that begins by locking the container and looking where the move is: a step
//! that was taken before, by whomever, is not taken again.

use super::{send_next, target, ties};
use crate::{
    app::App,
    error::ServiceError,
    event::Actor,
    service::{
        container::change::{renew, renew_any, write},
        share,
    },
    store::{
        StoreError, Transaction,
        container::{self, ContainerRow, Status},
        departure, move_record, move_snapshots,
        moves::{self, Move, State},
        operation, reservation, snapshot, sync, transfer,
    },
};
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired, State as Reported},
    id::{ContainerId, ServerId},
    time::now_ms,
};
use std::collections::BTreeSet;

/// The move and its container, locked, where the move still is where it was found.
async fn lock(tx: &mut Transaction, found: &Move) -> Result<Option<(Move, Option<ContainerRow>)>, ServiceError> {
    let row = container::lock(tx, found.container).await?;
    let now = moves::get(&mut **tx, found.id).await?;
    let now = now.filter(|now| now.state == found.state && now.transfer == found.transfer);
    Ok(now.map(|now| (now, row)))
}

/// What was on its way is at the target, whole and verified: the next step. Where that is refused because of what tenants
/// wrote, it would be refused again: the move fails.
pub(crate) async fn arrived(app: &App, found: &Move) -> Result<(), ServiceError> {
    hoody_fault::point!("move.arrived");
    match go_on(app, found).await {
        Err(ServiceError::Unprocessable { message, .. }) => fail(app, found, Cause::new("refused", message)).await,
        ended => ended,
    }
}

async fn go_on(app: &App, found: &Move) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let shared_with = match found.state {
        State::Finishing => share::lock_with_targets(&mut tx, found.container).await?,
        _ => BTreeSet::new(),
    };
    let Some((mut row, Some(owned))) = lock(&mut tx, found).await? else { return Ok(()) };
    let (Some(transfer), Some(target)) = (row.transfer, row.target) else { return Ok(()) };
    if owned.spec.desired == Desired::Deleted {
        return give_up(app, tx, row, Some(owned), deleted()).await;
    }
    let now = now_ms() as i64;
    row.bytes += moves::kept(&mut tx, transfer, now).await?;
    let of_snapshot = transfer::get(&mut *tx, transfer).await?.is_some_and(|sent| sent.snapshot.is_some());
    match row.state {
        State::Copying | State::Syncing | State::Finishing if of_snapshot => {
            row.transfer = Some(send_next(&mut tx, &owned, target, Some(transfer), now).await?);
            moves::advance(&mut tx, row.state, &row).await?;
            tx.commit().await.map_err(StoreError::from)?;
            hoody_fault::point!("move.snapshot_sent");
        }
        State::Copying if owned.status == Status::Running => {
            row.transfer = Some(send_next(&mut tx, &owned, target, Some(transfer), now).await?);
            row.state = State::Syncing;
            moves::advance(&mut tx, State::Copying, &row).await?;
            tx.commit().await.map_err(StoreError::from)?;
            hoody_fault::point!("move.copied");
        }
        State::Copying | State::Syncing => hold(app, tx, row, owned, target).await?,
        State::Finishing => switch(app, tx, row, owned, &shared_with).await?,
        State::Stopping | State::Starting | State::Done | State::Failed => {}
    }
    Ok(())
}

/// The snapshot that is to be sent was deleted: what comes after it is sent, as the difference from what came before it.
pub(crate) async fn skip(app: &App, found: &Move) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some((mut row, Some(owned))) = lock(&mut tx, found).await? else { return Ok(()) };
    let (Some(id), Some(target), true) = (row.transfer, row.target, row.state.is_before_switch()) else {
        return Ok(());
    };
    let Some(skipped) = transfer::get(&mut *tx, id).await? else { return Ok(()) };
    let held = snapshot::list(&mut *tx, row.container).await?;
    if skipped.snapshot.is_none_or(|skipped| held.iter().any(|held| held.id == skipped)) {
        return Ok(());
    }
    let now = now_ms() as i64;
    transfer::end(&mut tx, id, now).await?;
    row.transfer = Some(send_next(&mut tx, &owned, target, skipped.base, now).await?);
    moves::advance(&mut tx, row.state, &row).await?;
    Ok(tx.commit().await.map_err(StoreError::from)?)
}

/// Has the source stop the container and hold it.
async fn hold(
    app: &App,
    mut tx: Transaction,
    mut row: Move,
    mut owned: ContainerRow,
    target: ServerId,
) -> Result<(), ServiceError> {
    let tie = match ties::of(&mut tx, &owned).await? {
        None if owned.spec.limits != row.limits => {
            Some(Cause::new("limits_changed", "the container's limits were changed while it was copied: move it again"))
        }
        None => target::objection(&mut tx, &owned, target, row.drain).await?,
        tie => tie,
    };
    if let Some(tie) = tie {
        return give_up(app, tx, row, Some(owned), tie).await;
    }
    let (from, read, now) = (row.state, owned.spec.version, now_ms() as i64);
    row.desired = Some(match owned.spec.desired {
        // It is not started because it moves.
        Desired::Running { .. } if has_ended(&owned) => Desired::Stopped { force: false },
        desired => desired,
    });
    owned.spec.desired = Desired::Stopped { force: false };
    owned.attributes.held = true;
    renew(&mut tx, &mut owned).await?;
    write(&mut tx, &mut owned, read).await?;
    (row.state, row.held, row.held_at) = (State::Stopping, Some(owned.spec.version), Some(now));
    moves::advance(&mut tx, from, &row).await?;
    move_record::tell(&mut tx, &owned, &row, false, now).await?;
    hoody_fault::point!("move.holding");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("move.held");
    app.nodes.changes.announce(row.container);
    app.nodes.wake(row.source);
    Ok(())
}

/// True where the first process has ended by itself. The status word alone does not tell: it says so too from the request
/// to start it until the server's report.
fn has_ended(owned: &ContainerRow) -> bool {
    owned.report.as_ref().is_some_and(|report| {
        report.version == owned.spec.version && report.converged && report.state == Reported::Stopped
    })
}

/// True where the source has said that the container is stopped, by the version that holds it.
pub(crate) fn is_stopped(row: &Move, owned: &ContainerRow) -> bool {
    owned.server == row.source
        && owned.report.as_ref().is_some_and(|report| {
            Some(report.version) == row.held && report.converged && report.state == Reported::Stopped
        })
}

/// The source has stopped it and holds it: what changed since is sent. From here on it has the snapshots that it has: what
/// would take or delete one has ended, and nothing of the kind is accepted.
pub(crate) async fn stopped(app: &App, found: &Move) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some((mut row, Some(owned))) = lock(&mut tx, found).await? else { return Ok(()) };
    if row.state == State::Stopping && row.held != Some(owned.spec.version) {
        return give_up(app, tx, row, Some(owned), changed()).await;
    }
    let Some(target) = row.target.filter(|_| row.state == State::Stopping && is_stopped(&row, &owned)) else {
        return Ok(());
    };
    let now = now_ms() as i64;
    // The source would refuse them by now: they come before what it has accepted.
    let cause = Cause::new("moved", "the container is being moved to another server");
    operation::expire_unsent(&mut tx, row.container, &cause, now).await?;
    if move_snapshots::is_unsettled(&mut tx, row.container).await? {
        tx.commit().await.map_err(StoreError::from)?;
        let message = "whether the container has a snapshot that was being taken or deleted is not known yet";
        return Err(ServiceError::Unavailable(message.to_owned()));
    }
    row.transfer = Some(send_next(&mut tx, &owned, target, row.transfer, now).await?);
    row.state = State::Finishing;
    moves::advance(&mut tx, State::Stopping, &row).await?;
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("move.stopped");
    Ok(())
}

/// The container was deleted while it was moved.
pub(crate) fn deleted() -> Cause {
    Cause::new("deleted", "the container was deleted")
}

fn changed() -> Cause {
    Cause::new("changed", "the container was changed while it was moved: move it again")
}

/// The one step after which the target is in charge. The source has said that it holds the container by the version that
/// is still the newest: it runs nothing of it, and will not by itself.
async fn switch(
    app: &App,
    mut tx: Transaction,
    mut row: Move,
    mut owned: ContainerRow,
    shared_with: &BTreeSet<ContainerId>,
) -> Result<(), ServiceError> {
    let (Some(transfer), Some(target), Some(desired)) = (row.transfer, row.target, row.desired) else { return Ok(()) };
    let read = owned.spec.version;
    if row.held != Some(read) || !is_stopped(&row, &owned) {
        return give_up(app, tx, row, Some(owned), changed()).await;
    }
    if let Some(objection) = target::objection(&mut tx, &owned, target, row.drain).await? {
        return give_up(app, tx, row, Some(owned), objection).await;
    }
    let missing = move_snapshots::next(&mut tx, row.container).await?.is_some();
    if missing || move_snapshots::is_unsettled(&mut tx, row.container).await? {
        return give_up(app, tx, row, Some(owned), changed()).await;
    }
    let now = now_ms() as i64;
    let mut tombstone =
        ContainerSpec { desired: Desired::Deleted, shares: Default::default(), egress: None, ..owned.spec.clone() };
    owned.attributes.held = false;
    let origin = owned.spec.origin.take().map(|origin| origin.container);
    owned.attributes.copied_from = owned.attributes.copied_from.or(origin);
    owned.spec.desired = desired;
    (owned.spec.transfer, owned.spec.moved) = (Some(transfer), true);
    let snapshots = move_snapshots::sent(&mut *tx, row.container).await?;
    owned.spec.snapshots = snapshots.try_into().map_err(ServiceError::internal)?;
    owned.server = target;
    // What the containers of its project share on the new server.
    owned.spec.shares = share::mounts(&mut tx, &owned).await?.try_into().map_err(ServiceError::internal)?;
    renew(&mut tx, &mut owned).await?;
    (tombstone.version, tombstone.sequence) = (owned.spec.version, owned.spec.sequence);
    write(&mut tx, &mut owned, read).await?;
    container::relocate(&mut tx, &owned).await?;
    // And what it shares with them.
    let neighbours = share::apply(&mut tx, shared_with, Actor::System).await?;
    departure::insert(&mut tx, row.source, &tombstone, now).await?;
    row.state = State::Starting;
    moves::advance(&mut tx, State::Finishing, &row).await?;
    move_record::tell(&mut tx, &owned, &row, false, now).await?;
    hoody_fault::point!("move.switching");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("move.switched");
    tracing::info!(container = %row.container, from = %row.source, to = %target, "a container has moved");
    app.nodes.measurements.forget(row.container);
    app.nodes.changes.announce(row.container);
    app.nodes.wake(target);
    neighbours.iter().for_each(|row| app.nodes.wake(row.server));
    Ok(())
}

/// True where the target has the container as it should be, or the container is gone.
pub(crate) fn is_started(owned: Option<&ContainerRow>) -> bool {
    owned.is_none_or(|owned| owned.report.as_ref().is_some_and(|report| report.converged))
}

/// The target has it: the source may delete what it holds.
pub(crate) async fn started(app: &App, found: &Move) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some((mut row, owned)) = lock(&mut tx, found).await? else { return Ok(()) };
    if row.state != State::Starting || !is_started(owned.as_ref()) {
        return Ok(());
    }
    let now = now_ms() as i64;
    let ran = matches!(row.desired, Some(Desired::Running { .. })) && owned.is_some();
    row.pause_ms = row.held_at.filter(|_| ran).map(|held_at| (now - held_at).max(0));
    (row.state, row.ended_at) = (State::Done, Some(now));
    moves::end_transfers(&mut tx, row.container, now).await?;
    moves::advance(&mut tx, State::Starting, &row).await?;
    if let Some(owned) = &owned {
        move_record::tell(&mut tx, owned, &row, false, now).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("move.done");
    app.nodes.changes.announce(row.container);
    app.nodes.wake(row.source);
    Ok(())
}

/// Ends a move before it is the target's; the source goes on with the container.
pub(crate) async fn fail(app: &App, found: &Move, cause: Cause) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let row = container::lock(&mut tx, found.container).await?;
    // Wherever it is by now.
    let Some(now) = moves::get(&mut *tx, found.id).await? else { return Ok(()) };
    give_up(app, tx, now, row, cause).await
}

async fn give_up(
    app: &App,
    mut tx: Transaction,
    mut row: Move,
    owned: Option<ContainerRow>,
    cause: Cause,
) -> Result<(), ServiceError> {
    let (from, now) = (row.state, now_ms() as i64);
    if !from.is_before_switch() {
        return Ok(());
    }
    tracing::warn!(container = %row.container, source = %row.source, code = %cause.code, "a move failed");
    (row.state, row.failure, row.ended_at) = (State::Failed, Some(cause), Some(now));
    if !moves::advance(&mut tx, from, &row).await? {
        return Ok(());
    }
    moves::end_transfers(&mut tx, row.container, now).await?;
    if let Some(target) = row.target {
        reservation::release(&mut tx, target, &row.limits).await?;
    }
    if let Some(mut owned) = owned {
        if owned.attributes.held && owned.spec.desired != Desired::Deleted {
            let read = owned.spec.version;
            owned.attributes.held = false;
            owned.spec.desired = match row.desired {
                // Another first process: that one was ended for the move.
                Some(Desired::Running { .. }) => {
                    owned.attributes.runs += 1;
                    Desired::Running { run: owned.attributes.runs }
                }
                Some(desired) => desired,
                None => owned.spec.desired,
            };
            renew_any(&mut tx, &mut owned).await?;
            write(&mut tx, &mut owned, read).await?;
        }
        move_record::tell(&mut tx, &owned, &row, false, now).await?;
    }
    hoody_fault::point!("move.failing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("move.failed");
    app.nodes.changes.announce(row.container);
    app.nodes.wake(row.source);
    row.target.iter().chain([&row.source]).for_each(|server| app.nodes.wake_for_moves(*server));
    Ok(())
}

/// What it was to be the difference from is gone: all of it is sent.
pub(crate) async fn make_whole(app: &App, row: &Move) -> Result<(), ServiceError> {
    let Some(transfer) = row.transfer else { return Ok(()) };
    let mut tx = app.store.begin().await?;
    sync::make_whole(&mut tx, transfer).await?;
    Ok(tx.commit().await.map_err(StoreError::from)?)
}
