//! From a running first process to none, and from a container to nothing.

use super::{
    names, operation,
    owner::Cell,
    pass::{PassError, Settled, failed, journal_ended, not_persisted, unless_requested},
};
use crate::{
    desired::record::{Phase, Record, Run},
    runtime::{Process, RuntimeError},
};
use hoody_protocol::{
    container::{Cause, Desired, State, StatusReport},
    link::Report,
    operation::OperationOutcome,
    time::now_ms,
};
use std::time::Duration;
use tokio::time::Instant;

/// The time between killing every process and their being gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

fn runtime_failed(step: &'static str) -> impl FnOnce(RuntimeError) -> PassError {
    failed(step, "runtime_failed", "the container's processes could not be ended")
}

/// Ends the first process, removes what belongs to a run, and writes down how it ended.
pub(super) async fn ensure_stopped(cell: &Cell, record: Record, process: Process) -> Result<Record, PassError> {
    let force = matches!(record.spec.desired, Desired::Stopped { force: true } | Desired::Deleted);
    let code = match process {
        Process::Running { .. } | Process::Paused { .. } => end(cell, &record, force).await?,
        Process::Exited { code, .. } => code,
        Process::Created { .. } | Process::Absent => None,
    };
    clear(cell, &record).await?;
    match record.run.as_ref().map(|run| &run.phase) {
        None | Some(Phase::Ended { .. }) => Ok(record),
        Some(_) => {
            let change = |record: &mut Record| {
                if let Some(run) = &mut record.run {
                    run.phase = Phase::Ended { code, cause: None };
                }
            };
            cell.advance(&record, change).await
        }
    }
}

/// Asks the first process to end and kills it where it does not; gives the exit code. A request that
/// arrives meanwhile interrupts the wait, so that a forced stop or a deletion need not wait.
pub(super) async fn end(cell: &Cell, record: &Record, force: bool) -> Result<Option<i32>, PassError> {
    let runtime = &cell.context.capabilities.runtime;
    let id = record.spec.id;
    mark(cell).await?;
    hoody_fault::point!("stop.marked");
    cell.report(record, State::Stopping, false, None).await;
    if !force {
        let asked = match cell.progress().stop_asked {
            Some(asked) => asked,
            None => {
                runtime.signal_stop(id, false).await.map_err(runtime_failed("ask the first process to end"))?;
                hoody_fault::point!("stop.asked");
                let now = Instant::now();
                cell.set_progress(|progress| progress.stop_asked = Some(now));
                now
            }
        };
        let timeout = cell.context.settings.stop_timeout.saturating_sub(asked.elapsed());
        match unless_requested(cell, tokio::time::timeout(timeout, runtime.wait(id))).await? {
            Ok(ended) => ended.map_err(runtime_failed("wait for the first process"))?,
            Err(_) => {
                tracing::info!(container = %id, "the first process did not end when asked")
            }
        }
    }
    if matches!(
        runtime.state(id).await.map_err(runtime_failed("look at the first process"))?,
        Process::Running { .. } | Process::Paused { .. }
    ) {
        runtime.signal_stop(id, true).await.map_err(runtime_failed("kill the processes"))?;
        hoody_fault::point!("stop.killed");
        match tokio::time::timeout(KILL_DEADLINE, runtime.wait(id)).await {
            Ok(ended) => ended.map_err(runtime_failed("wait for the first process"))?,
            Err(late) => {
                return Err(failed("kill the processes", "processes_stuck", "processes of the container do not end")(
                    late,
                ));
            }
        }
    }
    hoody_fault::point!("stop.ended");
    match runtime.state(id).await.map_err(runtime_failed("look at the first process"))? {
        Process::Exited { code, .. } => Ok(code),
        _ => Ok(None),
    }
}

/// Writes down, before anything is signalled, that the first process is being ended.
async fn mark(cell: &Cell) -> Result<(), PassError> {
    let begun = |run: &Run| matches!(run.phase, Phase::Starting | Phase::Started { .. });
    if cell.record().run.as_ref().is_some_and(begun) {
        let change = |record: &mut Record| {
            if let Some(run) = &mut record.run {
                run.phase = Phase::Stopping;
            }
        };
        cell.update(change).await.map_err(not_persisted)?;
    }
    Ok(())
}

/// Removes everything of a run: link, processes, rules and mount. Every part is tried; the first error is
/// given, so that one stuck part does not leave the others standing.
pub(super) async fn clear(cell: &Cell, record: &Record) -> Result<(), PassError> {
    let id = record.spec.id;
    let capabilities = &cell.context.capabilities;
    let network = capabilities.network.detach(id).await;
    hoody_fault::point!("link.detached");
    let runtime = capabilities.runtime.delete(id).await;
    // Rules stand until the link and the processes are gone.
    let firewall = match (&network, &runtime) {
        (Ok(()), Ok(())) => capabilities.firewall.remove(id).await,
        _ => Ok(()),
    };
    if let (Ok(()), Ok(()), Ok(())) = (&network, &runtime, &firewall) {
        // Last: nothing of the container's is left that could be taken.
        names::forget(cell, record).await;
        capabilities.egress.set(id, record.address, None).await;
        hoody_fault::point!("egress.cleared");
    }
    cell.set_enforced(|enforced| *enforced = Default::default());
    if runtime.is_ok() {
        cell.set_progress(|progress| progress.stop_asked = None);
    }
    let (storage, shares) = match &runtime {
        Ok(()) => (capabilities.storage.unmount(id).await, capabilities.shares.clear(id).await),
        Err(_) => (Ok(()), Ok(())),
    };
    let ramdisk = match &runtime {
        // One that is wanted outlives the run.
        Ok(()) if record.spec.ramdisk.is_none() => capabilities.ramdisks.remove(id).await,
        _ => Ok(()),
    };
    network.map_err(failed("detach the link", "network_failed", "the container's network could not be removed"))?;
    runtime.map_err(runtime_failed("remove the processes"))?;
    firewall.map_err(failed(
        "remove the firewall",
        "firewall_failed",
        "the container's firewall could not be removed",
    ))?;
    storage.map_err(failed("unmount", "storage_failed", "the container's root file system could not be unmounted"))?;
    shares.map_err(failed("unmount the shares", "shares_failed", "the container's shares could not be unmounted"))?;
    ramdisk.map_err(failed(
        "remove the RAM disk",
        "ramdisk_failed",
        "the container's RAM disk could not be removed",
    ))?;
    hoody_fault::point!("run.cleared");
    Ok(())
}

/// Deletes everything of the container, tells the control plane, and forgets it once that is known there.
pub(super) async fn delete(cell: &Cell, record: &Record) -> Result<Settled, PassError> {
    let position = match cell.progress().deleted {
        Some((version, position)) if version == record.spec.version => position,
        _ => {
            let position = delete_all(cell, record).await?;
            cell.set_progress(|progress| progress.deleted = Some((record.spec.version, position)));
            position
        }
    };
    // The tombstone stays until the control plane has it in writing.
    unless_requested(cell, cell.context.journal.acknowledged(position)).await?;
    hoody_fault::point!("deletion.acknowledged");
    let context = &cell.context;
    context.records.remove(record.spec.id).await.map_err(not_persisted)?;
    context.allocation.release(record.address, record.ids);
    tracing::info!(container = %record.spec.id, "deleted");
    Ok(Settled::Gone)
}

/// Deletes everything of the container; gives the position of the report that says so.
async fn delete_all(cell: &Cell, record: &Record) -> Result<u64, PassError> {
    cell.report(record, State::Deleting, false, None).await;
    for accepted in &record.operations {
        let failure = Some(Cause::new("deleted", "the container was deleted"));
        let outcome =
            OperationOutcome { id: accepted.request.id, container: record.spec.id, failure, bytes: None, at: now_ms() };
        operation::conclude(cell, outcome).await?;
    }
    clear(cell, record).await?;
    let removed = cell.context.capabilities.ramdisks.remove(record.spec.id).await;
    removed.map_err(failed(
        "remove the RAM disk",
        "ramdisk_failed",
        "the container's RAM disk could not be removed",
    ))?;
    let deleted = cell.context.capabilities.storage.delete(record.spec.id).await;
    deleted.map_err(failed("delete", "storage_failed", "the container's root file system could not be deleted"))?;
    let forgotten = cell.context.capabilities.transfers.forget(record.spec.id).await;
    forgotten.map_err(failed("forget transfers", "storage_failed", "what copies are based on could not be deleted"))?;
    let forgotten = cell.context.capabilities.runtime.forget(record.spec.id).await;
    forgotten.map_err(runtime_failed("remove what the processes wrote"))?;
    hoody_fault::point!("root.deleted");
    let report = StatusReport {
        container: record.spec.id,
        version: record.spec.version,
        state: State::Deleted,
        converged: true,
        cause: None,
        exit_code: None,
        address: None,
        started_at: None,
        firewall_error: None,
        limits_error: None,
        ssh_key_error: None,
        oom_kills: 0,
        egress: None,
        share_failures: Default::default(),
        at: now_ms(),
    };
    let position = cell.context.journal.append_held(Report::Status(report)).await.ok_or_else(journal_ended)?;
    cell.context.journal.release(position);
    hoody_fault::point!("deletion.reported");
    Ok(position)
}
