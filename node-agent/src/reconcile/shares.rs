//! The container's shares and its RAM disk: mounted before its first process is made. Shares follow the specification
//! while it runs; one that cannot be mounted keeps nothing from running: it is reported, and tried with every pass.

use super::{
    owner::Cell,
    pass::{PassError, failed},
};
use crate::{desired::record::Record, ramdisk::Wanted, shares::ShareError};
use hoody_protocol::{
    share::{ShareFailure, ShareMount, ShareProblem},
    time::now_ms,
};
use std::{path::PathBuf, time::Duration};

/// A RAM disk may take this part of the container's memory, which what it holds is counted as.
const RAMDISK_DIVISOR: u64 = 2;

/// What is to be mounted now: without what has expired.
fn wanted(record: &Record) -> Vec<ShareMount> {
    let now = now_ms();
    record.spec.shares.iter().filter(|share| share.until.is_none_or(|until| until > now)).cloned().collect()
}

/// The time until the next share expires, for the next look.
pub(super) fn next_expiry(record: &Record) -> Option<Duration> {
    let now = now_ms();
    let left = record.spec.shares.iter().filter_map(|share| share.until?.checked_sub(now));
    left.filter(|left| *left > 0).min().map(Duration::from_millis)
}

/// Mounts what a run begins with; gives the folder that appears at `/mnt/shares`.
pub(super) async fn prepare(cell: &Cell, record: &Record) -> Result<PathBuf, PassError> {
    let wanted = wanted(record);
    let converged = cell.context.capabilities.shares.converge(record.spec.id, record.ids, &wanted).await;
    let converged = converged.map_err(shares_failed)?;
    note(cell, wanted, converged.failures);
    Ok(converged.folder)
}

/// Brings the shares of a running container to what they should be; true where one was unmounted by others and is
/// mounted again.
pub(super) async fn keep(cell: &Cell, record: &Record, pid: i32) -> Result<bool, PassError> {
    let (wanted, before) = (wanted(record), cell.enforced());
    let shares = &cell.context.capabilities.shares;
    let converged = shares.converge(record.spec.id, record.ids, &wanted).await.map_err(shares_failed)?;
    let mut failures = converged.failures;
    let id = record.spec.id;
    let unseen = |share: &ShareMount| ShareFailure { id: share.id, problem: ShareProblem::RestartRequired };
    let placed = |share: &&ShareMount| share.place.is_some();
    if !wanted.is_empty() && !shares.is_visible(id, pid).await.map_err(shares_failed)? {
        failures = wanted.iter().map(unseen).collect();
    } else if wanted.iter().any(|share| placed(&share)) && !shares.takes_places(id, pid).await.map_err(shares_failed)? {
        failures.retain(|failure| !wanted.iter().filter(placed).any(|share| share.id == failure.id));
        failures.extend(wanted.iter().filter(placed).map(unseen));
    }
    // As it is now: one that was changed is mounted anew, and nobody has taken it away.
    let stood = |id| {
        let as_wanted = |share: &&ShareMount| share.id == id && wanted.contains(share);
        before.shares.iter().flatten().any(|share| as_wanted(&share))
            && !before.share_failures.iter().any(|failure| failure.id == id)
    };
    let repaired = converged.mounted.into_iter().any(stood);
    note(cell, wanted, failures);
    Ok(repaired)
}

fn note(cell: &Cell, wanted: Vec<ShareMount>, failures: Vec<ShareFailure>) {
    cell.set_enforced(|enforced| {
        enforced.shares = Some(wanted);
        enforced.share_failures = failures;
    });
}

fn shares_failed(error: ShareError) -> PassError {
    failed("shares", "shares_failed", "the container's shares could not be brought to what they should be")(error)
}

/// Makes the RAM disk that a run begins with, or takes away one that is not wanted any more.
pub(super) async fn ramdisk(cell: &Cell, record: &Record) -> Result<Option<PathBuf>, PassError> {
    let (spec, ramdisks) = (&record.spec, &cell.context.capabilities.ramdisks);
    let ramdisk_failed = || failed("RAM disk", "ramdisk_failed", "the container's RAM disk could not be made");
    let Some(scope) = spec.ramdisk else {
        return ramdisks.remove(spec.id).await.map(|()| None).map_err(ramdisk_failed());
    };
    let wanted = Wanted { scope, project: spec.project, bytes: spec.limits.memory_bytes / RAMDISK_DIVISOR };
    ramdisks.ensure(spec.id, record.ids, wanted).await.map(Some).map_err(ramdisk_failed())
}
