//! Operations: each is brought to exactly one outcome, which is journaled before the record forgets the
//! operation.

use super::{
    owner::Cell,
    pass::{PassError, Settled, not_persisted},
    start, stop,
};
use crate::{
    desired::record::{Accepted, Phase, Record, Run},
    runtime::Process,
};
use hoody_protocol::{
    container::Cause,
    id::OperationId,
    link::Report,
    operation::{OperationKind, OperationOutcome},
    time::now_ms,
};

/// Takes the next operation one step further.
pub(super) async fn execute(cell: &Cell, record: &Record, accepted: &Accepted) -> Result<Settled, PassError> {
    let id = accepted.request.id;
    if !accepted.begun {
        let waited = now_ms().saturating_sub(accepted.at);
        if waited > accepted.request.begin_within_ms {
            return finish(
                cell,
                record,
                id,
                Some(Cause::new("too_late", "the server did not begin the operation in time")),
            )
            .await;
        }
        cell.update(|record| change(record, id, |accepted| accepted.begun = true)).await.map_err(not_persisted)?;
    }
    match accepted.request.kind {
        OperationKind::Restart => restart(cell, record, accepted).await,
    }
}

/// Stop, then start. Where the specification no longer wants a first process, the restart fails instead.
async fn restart(cell: &Cell, record: &Record, accepted: &Accepted) -> Result<Settled, PassError> {
    let id = accepted.request.id;
    let Some(number) = record.wanted_run() else {
        let cause = Cause::new("superseded", "a later request stopped the container");
        return finish(cell, record, id, Some(cause)).await;
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
        return Ok(Settled::Again);
    }
    match process {
        // The new first process ended before it was seen running: it did start.
        Process::Exited { .. } => {}
        process => {
            start::ensure_running(cell, record.clone(), number, process).await?;
        }
    }
    finish(cell, record, id, None).await
}

/// Journals the outcome, then moves the operation out of the record. A crash between the two is mended
/// when the agent starts: the journal knows.
async fn finish(cell: &Cell, record: &Record, id: OperationId, failure: Option<Cause>) -> Result<Settled, PassError> {
    let outcome = OperationOutcome { id, container: record.spec.id, failure, at: now_ms() };
    conclude(cell, outcome).await?;
    Ok(Settled::Again)
}

/// Gives an operation its one outcome.
pub(super) async fn conclude(cell: &Cell, outcome: OperationOutcome) -> Result<(), PassError> {
    let journal = &cell.context.journal;
    let position = journal.append_held(Report::Outcome(outcome.clone())).await;
    let updated = cell.update(|record| record.finish(outcome)).await;
    if let Some(position) = position {
        journal.release(position);
    }
    updated.map_err(not_persisted).map(|_| ())
}

fn change(record: &mut Record, id: OperationId, change: impl FnOnce(&mut Accepted)) {
    if let Some(accepted) = record.operations.iter_mut().find(|accepted| accepted.request.id == id) {
        change(accepted);
    }
}
