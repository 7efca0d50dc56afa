//! Another root file system in the place of the one there is, a snapshot of it or what a sync brought: stop, swap, start.
//! How far it has come is in the record before each step, and every step can be done again. The root file system that was
//! before is kept until the new one runs; where that does not come to pass, it is brought back, and the container goes on
//! with it as its specification says. After a sync it stays as a snapshot too.

use super::{
    operation::{self, change},
    owner::Cell,
    pass::{PassError, Settled, failed, not_persisted},
    snapshot, start, stop,
};
use crate::{
    desired::record::{Accepted, Phase, Record, Restoration, Run},
    runtime::Process,
    storage::{Replacement, StorageError},
};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, OperationId, SnapshotId, TransferId},
    operation::OperationKind,
};

/// What takes the place of the root file system.
#[derive(Debug, Clone, Copy)]
pub(super) enum With {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// What a sync brought; what was before is kept as a snapshot.
    Sync { transfer: TransferId, snapshot: SnapshotId, origin: Option<ContainerId> },
}

impl With {
    /// What an operation of this kind puts in place; `None`: it puts nothing.
    pub(super) fn of(kind: OperationKind) -> Option<Self> {
        match kind {
            OperationKind::RestoreSnapshot { snapshot } => Some(Self::Snapshot(snapshot)),
            OperationKind::Sync { transfer, snapshot, origin } => Some(Self::Sync { transfer, snapshot, origin }),
            _ => None,
        }
    }

    /// The code of a failure, and what the container then was.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Snapshot(_) => ("restore_failed", "restored"),
            Self::Sync { .. } => ("sync_failed", "synced"),
        }
    }
}

/// Takes the restoration one step further.
pub(super) async fn restore(
    cell: &Cell,
    record: &Record,
    accepted: &Accepted,
    with: With,
) -> Result<Settled, PassError> {
    let id = accepted.request.id;
    match &accepted.restoration {
        None => prepare(cell, record, id, with).await,
        Some(Restoration::Swapping) => swap(cell, record, accepted, with).await,
        Some(Restoration::Swapped) => begin(cell, record, accepted, with).await,
        Some(Restoration::Reverting { cause }) => bring_back(cell, record, id, with, cause.clone()).await,
    }
}

/// What is to be put in place, where it is there.
async fn replacement(cell: &Cell, record: &Record, with: With) -> Result<Replacement, StorageError> {
    let (capabilities, container) = (&cell.context.capabilities, record.spec.id);
    match with {
        With::Snapshot(snapshot) => {
            let held = capabilities.storage.snapshots(container).await?;
            let found = held.iter().any(|held| held.id == snapshot);
            found.then_some(Replacement::Snapshot(snapshot)).ok_or(StorageError::NoSnapshot { id: container, snapshot })
        }
        With::Sync { transfer, origin, .. } => {
            let held = capabilities.transfers.held(container, transfer).await?;
            let missing = StorageError::NoTransfer { id: container, transfer };
            held.map(|path| Replacement::Other { path, origin }).ok_or(missing)
        }
    }
}

/// Goes back to what was before, because of this. Where that was deleted already the new one has run: there is nothing to
/// go back to, and what the owner had is in the snapshot only.
pub(super) async fn revert(
    cell: &Cell,
    record: &Record,
    accepted: &Accepted,
    with: With,
    cause: Cause,
) -> Result<Settled, PassError> {
    let id = accepted.request.id;
    if matches!(accepted.restoration, Some(Restoration::Swapped)) {
        let aside = cell.context.capabilities.storage.is_aside(record.spec.id).await;
        if !aside.map_err(storage_failed("look for what was before"))? {
            return complete(cell, record, id, with).await;
        }
    }
    advance(cell, id, Restoration::Reverting { cause }).await
}

/// Stops the container, so that nothing holds its root file system.
async fn prepare(cell: &Cell, record: &Record, id: OperationId, with: With) -> Result<Settled, PassError> {
    // Before anything is stopped for it.
    if let Err(error) = replacement(cell, record, with).await {
        let cause = snapshot::failure(record, &error, "what is to be put in place could not be found");
        return operation::finish(cell, record, id, Err(cause)).await;
    }
    if is_alive(&start::process(cell, record).await?) {
        stop::end(cell, record, false).await?;
    }
    stop::clear(cell, record).await?;
    // Left by a restoration of which nothing is known any more.
    let forgotten = cell.context.capabilities.storage.forget_aside(record.spec.id).await;
    forgotten.map_err(storage_failed("clear the way"))?;
    advance(cell, id, Restoration::Swapping).await
}

async fn swap(cell: &Cell, record: &Record, accepted: &Accepted, with: With) -> Result<Settled, PassError> {
    hoody_fault::point!("restoration.started");
    let storage = &cell.context.capabilities.storage;
    let swapped = async {
        let replacement = replacement(cell, record, with).await?;
        if let With::Sync { snapshot, .. } = with {
            // Nothing runs: all that was written is in it.
            storage.take_snapshot(record.spec.id, snapshot).await?;
            hoody_fault::point!("sync.kept");
        }
        storage.swap_in(record.spec.id, &replacement).await
    };
    match swapped.await {
        Err(
            error @ (StorageError::NoSnapshot { .. }
            | StorageError::NoTransfer { .. }
            | StorageError::TooManySnapshots { .. }
            | StorageError::CopyTooLarge { .. }),
        ) => {
            let cause = snapshot::failure(record, &error, "what is to be put in place could not be put there");
            return revert(cell, record, accepted, with, cause).await;
        }
        swapped => swapped.map_err(storage_failed("swap the root file system"))?,
    }
    hoody_fault::point!("restoration.swapped");
    // The new root file system's limit, and its key, are put in force anew.
    cell.set_progress(|progress| progress.disk_bytes = None);
    if record.wanted_run().is_none() && matches!(with, With::Snapshot(_)) {
        // Nothing writes to the new root file system: where this is cut off, the swap is done again with the same end.
        // Not for a sync: to take that back deletes the snapshot of what was before, so how far it came is written down.
        return complete(cell, record, accepted.request.id, with).await;
    }
    advance(cell, accepted.request.id, Restoration::Swapped).await
}

/// Starts the container where its specification wants that; it runs, or what was before comes back.
async fn begin(cell: &Cell, record: &Record, accepted: &Accepted, with: With) -> Result<Settled, PassError> {
    if let Some(number) = record.wanted_run() {
        match start::process(cell, record).await? {
            // The new first process ended before it was seen running: it did start.
            Process::Exited { .. } => {}
            process => match start::ensure_running(cell, record.clone(), number, process).await {
                Err(PassError::Failed(failure)) => {
                    tracing::warn!(container = %record.spec.id, step = failure.step,
                        error = failure.error.as_ref() as &dyn std::error::Error, "a restored container did not start");
                    let (code, done) = with.words();
                    let why = format!(
                        "the {done} container did not start, and is as it was before: {}",
                        failure.cause.message
                    );
                    return revert(cell, record, accepted, with, Cause::new(code, why)).await;
                }
                started => {
                    started?;
                }
            },
        }
    }
    complete(cell, record, accepted.request.id, with).await
}

/// Lets go of what was before: from here on there is no way back.
async fn complete(cell: &Cell, record: &Record, id: OperationId, with: With) -> Result<Settled, PassError> {
    let storage = &cell.context.capabilities.storage;
    storage.forget_aside(record.spec.id).await.map_err(storage_failed("delete what was before"))?;
    let bytes = match with {
        With::Snapshot(_) => None,
        // Taken already: this says what it holds.
        With::Sync { snapshot, .. } => {
            let taken = storage.take_snapshot(record.spec.id, snapshot).await;
            Some(taken.map_err(storage_failed("measure what was before"))?)
        }
    };
    operation::finish(cell, record, id, Ok(bytes)).await
}

async fn bring_back(
    cell: &Cell,
    record: &Record,
    id: OperationId,
    with: With,
    cause: Cause,
) -> Result<Settled, PassError> {
    if is_alive(&start::process(cell, record).await?) {
        stop::end(cell, record, true).await?;
    }
    stop::clear(cell, record).await?;
    let back = cell.context.capabilities.storage.swap_back(record.spec.id).await;
    back.map_err(storage_failed("bring back what was before"))?;
    cell.set_progress(|progress| progress.disk_bytes = None);
    if let With::Sync { snapshot, .. } = with {
        // The same as what is in place again.
        snapshot::forget(cell, snapshot).await?;
    }
    let record = expect_start(cell, record).await?;
    if let Some(number) = record.wanted_run() {
        // Before the outcome, which says that all is as before. Where it fails, the next passes try again.
        match start::ensure_running(cell, record.clone(), number, Process::Absent).await {
            Err(PassError::Interrupted) => return Err(PassError::Interrupted),
            Err(PassError::Failed(failure)) => tracing::warn!(container = %record.spec.id, step = failure.step,
                error = failure.error.as_ref() as &dyn std::error::Error, "what was before a restoration did not start"),
            Ok(_) => {}
        }
    }
    operation::finish(cell, &record, id, Err(cause)).await
}

/// Writes down how far the restoration is; from the swap on, another first process is expected.
async fn advance(cell: &Cell, id: OperationId, to: Restoration) -> Result<Settled, PassError> {
    let boot_id = cell.context.settings.boot_id.clone();
    let next = |record: &mut Record| {
        change(record, id, |accepted| accepted.restoration = Some(to));
        if let Some(number) = record.wanted_run() {
            record.run = Some(Run { number, boot_id, phase: Phase::Starting });
        }
    };
    cell.update(next).await.map_err(not_persisted)?;
    Ok(Settled::Again)
}

/// Writes down that the first process is to be started once more where one is wanted.
async fn expect_start(cell: &Cell, record: &Record) -> Result<Record, PassError> {
    let boot_id = cell.context.settings.boot_id.clone();
    let again = |record: &mut Record| {
        if let Some(number) = record.wanted_run() {
            record.run = Some(Run { number, boot_id, phase: Phase::Starting });
        }
    };
    cell.advance(record, again).await
}

fn is_alive(process: &Process) -> bool {
    matches!(process, Process::Running { .. } | Process::Paused { .. })
}

fn storage_failed(step: &'static str) -> impl FnOnce(StorageError) -> PassError {
    failed(step, "storage_failed", "the container's root file system could not be restored")
}
