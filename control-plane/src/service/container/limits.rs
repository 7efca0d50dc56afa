//! The limits that clients ask for, and what a change of them means for the server.

use crate::{
    error::ServiceError,
    store::{
        container::ContainerRow,
        reservation::{self, Free},
    },
};
use hoody_protocol::container::Limits;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The most that can be asked for; what a server really has decides.
const MAX_CPU_CORES: f64 = 1024.0;
const MAX_MEMORY_MB: u64 = 16 << 20;
const MAX_DISK_MB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Resource limits as clients write them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpecsInput {
    /// Processor cores, also fractions.
    pub cpu_cores: Option<f64>,
    /// Memory in MiB.
    pub memory_mb: Option<u64>,
    /// Root file system in MiB.
    pub storage_mb: Option<u64>,
    /// Network rate in Mbit/s, each direction; at most what the operator gives every container.
    pub network_mbit: Option<u32>,
}

/// `limits` with what `specs` names in its place. `most_network_mbit` is the operator's; problems go to `check`.
pub(super) fn apply(
    mut limits: Limits,
    specs: SpecsInput,
    most_network_mbit: Option<u32>,
    check: &mut impl FnMut(&str, Result<(), String>),
) -> Limits {
    if let Some(cores) = specs.cpu_cores {
        let min = f64::from(Limits::MIN_CPU_MILLIS) / 1000.0;
        if (min..=MAX_CPU_CORES).contains(&cores) {
            limits.cpu_millis = (cores * 1000.0).round() as u32;
        } else {
            check("specs.cpu_cores", Err(format!("must be from {min} to {MAX_CPU_CORES}")));
        }
    }
    for (field, wanted, min_bytes, max, target) in [
        ("specs.memory_mb", specs.memory_mb, Limits::MIN_MEMORY_BYTES, MAX_MEMORY_MB, &mut limits.memory_bytes),
        ("specs.storage_mb", specs.storage_mb, Limits::MIN_DISK_BYTES, MAX_DISK_MB, &mut limits.disk_bytes),
    ] {
        let Some(wanted) = wanted else { continue };
        let min = min_bytes / MIB;
        if (min..=max).contains(&wanted) {
            *target = wanted * MIB;
        } else {
            check(field, Err(format!("must be from {min} to {max}")));
        }
    }
    if let Some(rate) = specs.network_mbit {
        let most = most_network_mbit.unwrap_or(Limits::MAX_NETWORK_MBIT);
        if (1..=most).contains(&rate) {
            limits.network_mbit = Some(rate);
        } else {
            check("specs.network_mbit", Err(format!("must be from 1 to {most}")));
        }
    }
    limits
}

/// A root file system is not made smaller than what is in it: its owner could not even delete a file then.
pub(super) fn check_shrink(before: &Limits, after: &Limits, disk_used_bytes: Option<u64>) -> Result<(), ServiceError> {
    let used = disk_used_bytes.unwrap_or(0);
    if after.disk_bytes >= before.disk_bytes || used <= after.disk_bytes {
        return Ok(());
    }
    Err(ServiceError::Unprocessable {
        message: format!(
            "the container uses {} MiB of disk, as last measured: delete files in it first, or ask for more",
            used.div_ceil(MIB)
        ),
        details: [("specs.storage_mb".to_owned(), format!("must be at least {}", used.div_ceil(MIB)))].into(),
    })
}

/// Changes what the container has reserved on its server from `before` to the row's limits; refused where
/// the server has too little left.
pub(super) async fn reserve(
    connection: &mut AnyConnection,
    row: &ContainerRow,
    before: &Limits,
) -> Result<(), ServiceError> {
    let after = &row.spec.limits;
    if reservation::resize(connection, row.server, before, after).await? {
        return Ok(());
    }
    let free = reservation::free(connection, row.server).await?;
    Err(shortage(&row.server_info.name, before, after, free))
}

fn shortage(server: &str, before: &Limits, after: &Limits, free: Free) -> ServiceError {
    let Free { cpu_millis, memory_bytes, disk_bytes } = free;
    let left = |bytes: i64| bytes.max(0) as u64 / MIB;
    let more = |after: u64, before: u64, free: i64| i128::from(after) - i128::from(before) > i128::from(free.max(0));
    let mut details = BTreeMap::new();
    if more(after.cpu_millis.into(), before.cpu_millis.into(), cpu_millis) {
        let most = (i64::from(before.cpu_millis) + cpu_millis.max(0)) as f64 / 1000.0;
        details.insert("specs.cpu_cores".to_owned(), format!("the server has room for {most}"));
    }
    for (field, after, before, free) in [
        ("specs.memory_mb", after.memory_bytes, before.memory_bytes, memory_bytes),
        ("specs.storage_mb", after.disk_bytes, before.disk_bytes, disk_bytes),
    ] {
        if more(after, before, free) {
            details.insert(field.to_owned(), format!("the server has room for {}", before / MIB + left(free)));
        }
    }
    ServiceError::Unprocessable {
        message: format!("server {server} has not enough left: ask for less, or make room on it"),
        details,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Limits = Limits {
        cpu_millis: 1000,
        memory_bytes: 512 * MIB,
        disk_bytes: 1024 * MIB,
        pids: 512,
        network_mbit: Some(100),
    };

    fn applied(specs: SpecsInput, most: Option<u32>) -> (Limits, Vec<String>) {
        let mut bad = Vec::new();
        let limits = apply(NOW, specs, most, &mut |field, outcome| {
            if outcome.is_err() {
                bad.push(field.to_owned());
            }
        });
        (limits, bad)
    }

    #[test]
    fn what_is_not_named_stays_and_every_bad_field_is_named() {
        assert_eq!(applied(SpecsInput::default(), Some(100)), (NOW, vec![]));
        let (limits, bad) = applied(SpecsInput { memory_mb: Some(64), ..SpecsInput::default() }, Some(100));
        assert_eq!((limits, bad), (Limits { memory_bytes: 64 * MIB, ..NOW }, vec![]));
        let all = SpecsInput {
            cpu_cores: Some(f64::NAN),
            memory_mb: Some(u64::MAX),
            storage_mb: Some(0),
            network_mbit: Some(101),
        };
        let (limits, bad) = applied(all, Some(100));
        assert_eq!(limits, NOW);
        assert_eq!(bad, ["specs.cpu_cores", "specs.memory_mb", "specs.storage_mb", "specs.network_mbit"]);
        assert!(applied(SpecsInput { network_mbit: Some(101), ..all }, None).1.iter().all(|f| !f.contains("network")));
    }

    #[test]
    fn a_root_file_system_is_not_made_smaller_than_its_files() {
        let half = Limits { disk_bytes: 512 * MIB, ..NOW };
        assert!(check_shrink(&NOW, &half, Some(512 * MIB)).is_ok());
        assert!(check_shrink(&NOW, &half, None).is_ok());
        assert!(check_shrink(&half, &NOW, Some(2000 * MIB)).is_ok(), "growing helps who is over");
        assert!(matches!(check_shrink(&NOW, &half, Some(513 * MIB)), Err(ServiceError::Unprocessable { .. })));
    }
}
