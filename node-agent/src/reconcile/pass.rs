//! One pass: read what is, do what is missing. Steps are idempotent; a pass that ends half-way is
//! continued by the next.

use super::{cause, operation, owner::Cell, snapshot, start, stop};
use crate::{
    desired::record::{Phase, Record, Run},
    runtime::Process,
};
use hoody_protocol::{
    container::{Cause, Desired, State},
    time::now_ms,
};
use std::future::Future;

/// How a pass ended well.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The container is what its specification says.
    Stable,
    /// Something was done after which everything is to be looked at again.
    Again,
    /// The container is deleted and the control plane knows.
    Gone,
}

/// How a pass ended early.
#[derive(Debug)]
pub(super) enum PassError {
    /// A request arrived during a wait.
    Interrupted,
    /// A step failed.
    Failed(Failure),
}

/// A failed step.
#[derive(Debug)]
pub(super) struct Failure {
    /// The step's name.
    pub(super) step: &'static str,
    /// What the control plane and the owner are told.
    pub(super) cause: Cause,
    /// All of it, for the log.
    pub(super) error: Box<dyn std::error::Error + Send + Sync>,
}

/// Maps an error of a step: `code` and `message` are for the owner, the error itself for the log.
pub(super) fn failed<E: std::error::Error + Send + Sync + 'static>(
    step: &'static str,
    code: &'static str,
    message: &'static str,
) -> impl FnOnce(E) -> PassError {
    move |error| {
        let cause = cause::known(&error).unwrap_or_else(|| Cause::new(code, message));
        PassError::Failed(Failure { step, cause, error: Box::new(error) })
    }
}

/// The record could not be written.
pub(super) fn not_persisted(error: crate::desired::DesiredError) -> PassError {
    failed("persist", "not_persisted", "the server could not persist the container's state")(error)
}

/// The journal's task is gone, which only a panic or the end of the agent can bring.
pub(super) fn journal_ended() -> PassError {
    failed("journal", "not_persisted", "the server could not persist what was done")(std::io::Error::other(
        "the journal's task has ended",
    ))
}

/// Waits for `work`, or for a request that the pass does not know, whichever comes first. Only for work
/// that may be abandoned.
pub(super) async fn unless_requested<T>(cell: &Cell, work: impl Future<Output = T>) -> Result<T, PassError> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = cell.requested() => Err(PassError::Interrupted),
    }
}

/// Brings the container to its specification.
pub(super) async fn converge(cell: &Cell) -> Result<Settled, PassError> {
    let mut record = cell.record();
    if record.spec.desired == Desired::Deleted {
        return stop::delete(cell, &record).await;
    }
    if let Some(settled) = operation::refuse_late(cell, &record).await? {
        return Ok(settled);
    }
    if let Some(settled) = operation::give_up(cell, &record).await? {
        return Ok(settled);
    }
    if record.wanted_run().is_none() {
        // Before the root file system is looked at: a stop must work where the storage does not.
        let process = start::process(cell, &record).await?;
        record = stop::ensure_stopped(cell, record, process).await?;
    }
    start::ensure_root(cell, &record).await?;
    if let Some(accepted) = record.operations.first() {
        return operation::execute(cell, &record, accepted).await;
    }
    snapshot::discard(cell, &record).await?;
    match record.wanted_run() {
        Some(number) => {
            let process = start::process(cell, &record).await?;
            run(cell, record, number, process).await
        }
        None => stable(cell, &record, State::Stopped).await,
    }
}

/// Reports a state that is what the specification asks for.
async fn stable(cell: &Cell, record: &Record, state: State) -> Result<Settled, PassError> {
    let cause = match record.run.as_ref().map(|run| &run.phase) {
        Some(Phase::Ended { cause, .. }) => cause.clone(),
        _ => None,
    };
    cell.report(record, state, true, cause).await;
    Ok(Settled::Stable)
}

/// A first process is wanted: `number` is the start request.
async fn run(cell: &Cell, record: Record, number: u64, process: Process) -> Result<Settled, PassError> {
    let boot_id = &cell.context.settings.boot_id;
    let alive = matches!(process, Process::Running { .. } | Process::Paused { .. });
    match record.run.clone() {
        // It was asked to end: another request to start gets another process.
        Some(Run { phase: Phase::Stopping, .. }) if alive => {
            stop::ensure_stopped(cell, record, process).await?;
            Ok(Settled::Again)
        }
        // Alive: adopted, whichever request started it.
        _ if alive => start::ensure_running(cell, record, number, process).await,
        Some(Run { number: begun, phase: Phase::Ended { .. } | Phase::Stopping, .. }) if begun == number => {
            let record = stop::ensure_stopped(cell, record, process).await?;
            stable(cell, &record, State::Stopped).await
        }
        Some(Run { number: begun, phase: Phase::Started { .. }, boot_id: begun_in }) if begun == number => {
            let rebooted = begun_in != *boot_id;
            if rebooted && record.spec.autostart {
                return start::ensure_running(cell, record, number, process).await;
            }
            let record = ended(cell, &record, process, rebooted).await?;
            let record = stop::ensure_stopped(cell, record, Process::Absent).await?;
            stable(cell, &record, State::Stopped).await
        }
        // The first process may have ended before it was seen running.
        Some(Run { number: begun, phase: Phase::Starting, .. }) if begun == number => match process {
            Process::Exited { .. } => {
                let record = ended(cell, &record, process, false).await?;
                let record = stop::ensure_stopped(cell, record, Process::Absent).await?;
                stable(cell, &record, State::Stopped).await
            }
            process => start::ensure_running(cell, record, number, process).await,
        },
        _ => start::ensure_running(cell, record, number, process).await,
    }
}

/// Writes down that the first process ended without having been asked to.
async fn ended(cell: &Cell, record: &Record, process: Process, rebooted: bool) -> Result<Record, PassError> {
    let (code, cause) = match process {
        Process::Exited { code, oom_killed: true } => {
            (code, Cause::new("out_of_memory", "the container used more memory than its limit and was ended"))
        }
        Process::Exited { code: Some(code), .. } => {
            (Some(code), Cause::new("exited", format!("the first process ended with code {code}")))
        }
        _ if rebooted => (None, Cause::new("server_rebooted", "the server was rebooted")),
        _ => (None, Cause::new("process_lost", "the first process is gone and left no exit code")),
    };
    let at = now_ms();
    tracing::info!(container = %record.spec.id, ?code, cause = %cause.code, at, "the first process ended");
    let change = |record: &mut Record| {
        if let Some(run) = &mut record.run {
            run.phase = Phase::Ended { code, cause: Some(cause) };
        }
    };
    cell.advance(record, change).await
}
