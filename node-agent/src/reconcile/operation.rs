//! Operations: each is brought to exactly one outcome, which is journaled before the record forgets the
//! operation.

use super::{
    Settings,
    owner::Cell,
    pass::{PassError, Settled, journal_ended, not_persisted},
    restore::{self, With},
    snapshot, start, stop,
};
use crate::{
    desired::record::{Accepted, Phase, Record, Restoration, Run},
    runtime::Process,
};
use hoody_protocol::{
    container::Cause,
    id::OperationId,
    link::Report,
    operation::{OperationKind, OperationOutcome},
    time::now_ms,
};
use std::time::Duration;

/// The time an operation has beside that in which the first process may end. With the default for stopping, whoever
/// asked the control plane still waits for the answer.
const LIMIT: Duration = Duration::from_secs(15);

/// Ends the next operation where its time to begin has passed, whatever else holds the container up.
pub(super) async fn refuse_late(cell: &Cell, record: &Record) -> Result<Option<Settled>, PassError> {
    let late = |accepted: &&Accepted| {
        !accepted.begun && now_ms().saturating_sub(accepted.at) > accepted.request.begin_within_ms
    };
    let Some(accepted) = record.operations.first().filter(late) else { return Ok(None) };
    let cause = Cause::new("too_late", "the server did not begin the operation in time");
    finish(cell, record, accepted.request.id, Err(cause)).await.map(Some)
}

/// Ends the next operation where it was begun and has not come to its end in time: whoever asked learns it, and
/// the container goes on as its specification says, which is tried for as long as it takes.
pub(super) async fn give_up(cell: &Cell, record: &Record) -> Result<Option<Settled>, PassError> {
    let settings = &cell.context.settings;
    let Some(accepted) = record.operations.first() else { return Ok(None) };
    if time_left(record, settings).is_none_or(|left| !left.is_zero()) {
        return Ok(None);
    }
    let why = cell.progress().cause.map_or_else(|| "it took too long".to_owned(), |cause| cause.message.to_string());
    let id = accepted.request.id;
    if let Some(with) = With::of(accepted.request.kind) {
        let cause = match with {
            With::Sync { .. } => ("sync_failed", format!("the container was not synced in time: {why}")),
            With::Snapshot(_) => ("restore_failed", format!("the snapshot was not restored in time: {why}")),
        };
        let cause = Cause::new(cause.0, cause.1);
        return match &accepted.restoration {
            None => finish(cell, record, id, Err(cause)).await.map(Some),
            // Brought to its end, however long it takes: half a swap is no state to leave.
            Some(Restoration::Reverting { .. }) => Ok(None),
            Some(_) => restore::revert(cell, record, accepted, with, cause).await.map(Some),
        };
    }
    match accepted.request.kind {
        OperationKind::Restart => {
            let cause = Cause::new("restart_failed", format!("the container was not restarted in time: {why}"));
            finish(cell, record, id, Err(cause)).await.map(Some)
        }
        OperationKind::CreateSnapshot { snapshot } => {
            snapshot::forget(cell, snapshot).await?;
            let cause = Cause::new("snapshot_failed", format!("the snapshot was not taken in time: {why}"));
            finish(cell, record, id, Err(cause)).await.map(Some)
        }
        OperationKind::DeleteSnapshot { .. } => {
            let cause = Cause::new("snapshot_failed", format!("the snapshot was not deleted in time: {why}"));
            finish(cell, record, id, Err(cause)).await.map(Some)
        }
        OperationKind::RestoreSnapshot { .. } | OperationKind::Sync { .. } => Ok(None),
    }
}

/// What is left of the time of an operation that was begun; `None` where there is none.
pub(super) fn time_left(record: &Record, settings: &Settings) -> Option<Duration> {
    let accepted = record.operations.first().filter(|accepted| accepted.begun)?;
    let limit = settings.stop_timeout + LIMIT;
    let elapsed = now_ms().saturating_sub(accepted.begun_at.unwrap_or(accepted.at));
    Some(limit.saturating_sub(Duration::from_millis(elapsed)))
}

/// Takes the next operation one step further.
pub(super) async fn execute(cell: &Cell, record: &Record, accepted: &Accepted) -> Result<Settled, PassError> {
    let id = accepted.request.id;
    if !accepted.begun {
        let begun = |accepted: &mut Accepted| (accepted.begun, accepted.begun_at) = (true, Some(now_ms()));
        cell.update(|record| change(record, id, begun)).await.map_err(not_persisted)?;
    }
    match accepted.request.kind {
        OperationKind::Restart => restart(cell, record, accepted).await,
        OperationKind::CreateSnapshot { snapshot } => snapshot::create(cell, record, id, snapshot).await,
        OperationKind::DeleteSnapshot { snapshot } => snapshot::delete(cell, record, id, snapshot).await,
        OperationKind::RestoreSnapshot { snapshot } => {
            restore::restore(cell, record, accepted, With::Snapshot(snapshot)).await
        }
        OperationKind::Sync { transfer, snapshot, origin } => {
            restore::restore(cell, record, accepted, With::Sync { transfer, snapshot, origin }).await
        }
    }
}

/// Stop, then start. Where the specification no longer wants a first process, the restart fails instead.
async fn restart(cell: &Cell, record: &Record, accepted: &Accepted) -> Result<Settled, PassError> {
    let id = accepted.request.id;
    let Some(number) = record.wanted_run() else {
        let cause = Cause::new("superseded", "the container was asked to be stopped, which it now is");
        return finish(cell, record, id, Err(cause)).await;
    };
    let process = start::process(cell, record).await?;
    if !accepted.stopped {
        if matches!(process, Process::Running { .. } | Process::Paused { .. }) {
            stop::end(cell, record, false).await?;
        }
        stop::clear(cell, record).await?;
        let boot_id = cell.context.settings.boot_id.clone();
        let stopped = |record: &mut Record| {
            change(record, id, |accepted| accepted.stopped = true);
            record.run = Some(Run { number, boot_id, phase: Phase::Starting });
        };
        cell.update(stopped).await.map_err(not_persisted)?;
        hoody_fault::point!("operation.stopped");
        return Ok(Settled::Again);
    }
    match process {
        // The new first process ended before it was seen running: it did start.
        Process::Exited { .. } => {}
        process => {
            start::ensure_running(cell, record.clone(), number, process).await?;
        }
    }
    finish(cell, record, id, Ok(None)).await
}

/// Journals the outcome, then moves the operation out of the record. A crash between the two is mended
/// when the agent starts: the journal knows. `ended` has the bytes of a snapshot that was taken.
pub(super) async fn finish(
    cell: &Cell,
    record: &Record,
    id: OperationId,
    ended: Result<Option<u64>, Cause>,
) -> Result<Settled, PassError> {
    let (bytes, failure) = match ended {
        Ok(bytes) => (bytes, None),
        Err(cause) => (None, Some(cause)),
    };
    let outcome = OperationOutcome { id, container: record.spec.id, failure, bytes, at: now_ms() };
    conclude(cell, outcome).await?;
    Ok(Settled::Again)
}

/// Gives an operation its one outcome. Where the record cannot be written, the outcome is kept and held
/// in the journal until it can: sent and acknowledged, it would be forgotten and the operation done again.
pub(super) async fn conclude(cell: &Cell, outcome: OperationOutcome) -> Result<(), PassError> {
    let journal = &cell.context.journal;
    let (outcome, position) = match cell.progress().concluded {
        Some((before, position)) if before.id == outcome.id => (before, position),
        _ => {
            let position = journal.append_held(Report::Outcome(outcome.clone())).await.ok_or_else(journal_ended)?;
            cell.set_progress(|progress| progress.concluded = Some((outcome.clone(), position)));
            tracing::info!(container = %outcome.container, operation = %outcome.id, failure = ?outcome.failure, "an operation ended");
            hoody_fault::point!("outcome.journaled");
            (outcome, position)
        }
    };
    cell.update(|record| record.finish(outcome)).await.map_err(not_persisted)?;
    hoody_fault::point!("outcome.recorded");
    cell.set_progress(|progress| progress.concluded = None);
    journal.release(position);
    Ok(())
}

pub(super) fn change(record: &mut Record, id: OperationId, change: impl FnOnce(&mut Accepted)) {
    if let Some(accepted) = record.operations.iter_mut().find(|accepted| accepted.request.id == id) {
        change(accepted);
    }
}
