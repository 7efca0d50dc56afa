//! A container's limits: put in force before its first process starts, and changed while it runs.

use super::{
    owner::Cell,
    pass::{PassError, failed},
};
use crate::{desired::record::Record, network::NetworkError, runtime::RuntimeError};
use hoody_protocol::container::Cause;
use std::path::Path;

/// Sets the disk limit where it is not known to be in force: it may have changed while nothing ran.
pub(super) async fn ensure_disk(cell: &Cell, record: &Record) -> Result<(), PassError> {
    let wanted = record.spec.limits.disk_bytes;
    if cell.progress().disk_bytes == Some(wanted) {
        return Ok(());
    }
    let resized = cell.context.capabilities.storage.create(record.spec.id, Path::new(""), wanted).await;
    resized.map_err(failed("change the disk limit", "storage_failed", "the disk limit could not be changed"))?;
    cell.set_progress(|progress| progress.disk_bytes = Some(wanted));
    Ok(())
}

/// Limits the rate of a link that was just made, and notes that all limits are in force: memory, processors
/// and processes were with the making of the container.
pub(super) async fn begin(cell: &Cell, record: &Record, pid: i32) -> Result<(), PassError> {
    // A new link has no limit.
    if record.spec.limits.network_mbit.is_some() {
        limit_rate(cell, record, pid).await.map_err(rate_failed)?;
    }
    in_force(cell, record);
    Ok(())
}

/// Puts the limits of a running container in force where they are not; `anew`: its link was just made, and
/// has no rate. What the kernel refuses now (memory that is in use) leaves the limits before in force, is
/// reported, and is tried again with every pass. True where the rate of the link was changed by others and is
/// as it was.
pub(super) async fn enforce(cell: &Cell, record: &Record, pid: i32, anew: bool) -> Result<bool, PassError> {
    ensure_disk(cell, record).await?;
    let (spec, known) = (&record.spec, cell.enforced().limits);
    let wanted = anew || known.is_none_or(|known| known.network_mbit != spec.limits.network_mbit);
    let damaged = match ensure_rate(cell, record, pid, wanted).await {
        Ok(damaged) => damaged,
        // The process is ending and takes its namespace along; the next pass sees its end.
        Err(NetworkError::OpenNamespace { .. }) => return Ok(false),
        Err(error) => return Err(rate_failed(error)),
    };
    if known == Some(spec.limits) {
        return Ok(damaged);
    }
    match cell.context.capabilities.runtime.update_limits(spec.id, &spec.limits).await {
        Ok(()) => in_force(cell, record),
        Err(error) => {
            tracing::warn!(container = %spec.id, error = &error as &dyn std::error::Error, "limits were refused; those before hold");
            let cause = match error {
                RuntimeError::MemoryInUse { used_bytes, .. } => Cause::new(
                    "memory_in_use",
                    format!(
                        "the container uses {} MiB of memory: the limits before hold until it uses less",
                        used_bytes.div_ceil(1 << 20)
                    ),
                ),
                _ => Cause::new("limits_refused", "the server refused the limits: those before hold"),
            };
            cell.set_enforced(|enforced| enforced.limits_error = Some((spec.version, cause)));
        }
    }
    Ok(damaged)
}

/// Sets the rate of the link where that is `wanted`, or where it is not as it was set; true for the latter.
async fn ensure_rate(cell: &Cell, record: &Record, pid: i32, wanted: bool) -> Result<bool, NetworkError> {
    let damaged = match record.spec.limits.network_mbit {
        Some(mbit) if !wanted => !cell.context.capabilities.network.is_rate_limited(record.spec.id, pid, mbit).await?,
        _ => false,
    };
    if wanted || damaged {
        limit_rate(cell, record, pid).await?;
    }
    Ok(damaged)
}

/// Notes how many processes of the run the kernel has ended for lack of memory, for the next report. One that
/// cannot be read now is read by the next pass.
pub(super) async fn count_kills(cell: &Cell, record: &Record) {
    match cell.context.capabilities.runtime.oom_kills(record.spec.id).await {
        Ok(kills) => cell.set_progress(|progress| progress.oom_kills = kills),
        Err(error) => {
            tracing::warn!(container = %record.spec.id, error = &error as &dyn std::error::Error, "memory events were not read");
        }
    }
}

fn in_force(cell: &Cell, record: &Record) {
    cell.set_enforced(|enforced| {
        enforced.limits = Some(record.spec.limits);
        enforced.limits_error = None;
    });
}

async fn limit_rate(cell: &Cell, record: &Record, pid: i32) -> Result<(), NetworkError> {
    cell.context.capabilities.network.limit_rate(record.spec.id, pid, record.spec.limits.network_mbit).await
}

fn rate_failed(error: NetworkError) -> PassError {
    failed("limit the network rate", "network_failed", "the container's network rate could not be limited")(error)
}
