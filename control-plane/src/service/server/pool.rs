//! How full a server's storage pool is, and when that is news: once for each threshold that is passed, and again only
//! after it has fallen well below.

use crate::{
    app::App,
    error::ServiceError,
    store::{container::ContainerRow, server_pool, server_pool::PoolHealth},
};
use hoody_protocol::{id::ServerId, stats::NodeStats};
use sqlx::AnyConnection;

/// Thresholds in percent.
pub const LEVELS: [i64; 3] = [80, 90, 95];
/// From this level on nothing new is begun on the server.
pub const FULL: i64 = LEVELS[2];
/// Percent below a threshold at which it no longer counts as passed.
const HYSTERESIS: f64 = 3.0;

/// 409 where the container's server is full.
pub async fn check_not_full(connection: &mut AnyConnection, row: &ContainerRow) -> Result<(), ServiceError> {
    if server_pool::level(connection, row.server).await? < FULL {
        return Ok(());
    }
    Err(ServiceError::Conflict(format!(
        "the storage of server {} is full: delete snapshots, files or containers on it first",
        row.server_info.name
    )))
}

/// The share of the pool that is used, percent; `None` where the node could not measure it.
pub fn used_percent(stats: &NodeStats) -> Option<f64> {
    let NodeStats { pool_used_bytes: used, pool_total_bytes: total, .. } = *stats;
    (total > 0).then(|| used as f64 * 100.0 / total as f64)
}

/// The level at this share, where it was `level` before.
fn next_level(level: i64, percent: f64) -> i64 {
    let passed = |threshold: &&i64| {
        let threshold = **threshold;
        percent >= threshold as f64 || (threshold <= level && percent > threshold as f64 - HYSTERESIS)
    };
    LEVELS.iter().rev().find(passed).copied().unwrap_or(0)
}

/// Tells what is new about the pool of a server; `known` is what was told last, as far as the caller knows. Gives what
/// is told now.
pub async fn note(
    app: &App,
    server: ServerId,
    known: Option<PoolHealth>,
    stats: &NodeStats,
) -> Result<Option<PoolHealth>, ServiceError> {
    let Some(percent) = used_percent(stats) else { return Ok(known) };
    let errors = i64::try_from(stats.pool_device_errors).unwrap_or(i64::MAX);
    let next = |before: PoolHealth| PoolHealth { level: next_level(before.level, percent), errors };
    if known.is_some_and(|before| next(before) == before) {
        return Ok(known);
    }
    let Some(before) = server_pool::read(&app.store, server).await? else { return Ok(None) };
    let now = next(before);
    if now != before {
        server_pool::write(&app.store, server, before, now, percent).await?;
    }
    Ok(Some(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_left_only_well_below_its_threshold() {
        let mut level = 0;
        let mut levels = Vec::new();
        for percent in [10.0, 79.9, 80.0, 79.0, 77.1, 77.0, 89.0, 90.0, 96.0, 93.0, 92.0, 88.0, 86.9, 50.0, 99.0] {
            level = next_level(level, percent);
            levels.push(level);
        }
        assert_eq!(levels, [0, 0, 80, 80, 80, 0, 80, 90, 95, 95, 90, 90, 80, 0, 95]);
    }

    #[test]
    fn a_pool_that_was_not_measured_says_nothing() {
        assert_eq!(used_percent(&NodeStats::default()), None);
        let full = NodeStats { pool_used_bytes: 19, pool_total_bytes: 20, ..NodeStats::default() };
        assert_eq!(used_percent(&full), Some(95.0));
    }
}
