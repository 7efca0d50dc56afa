//! A server's last measurement on the wire.

use crate::{api::time::rfc3339, service::server::Runtime};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
struct CpuRuntime {
    busy_pct: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Load {
    #[serde(rename = "1")]
    one: Option<f64>,
    #[serde(rename = "5")]
    five: Option<f64>,
    #[serde(rename = "15")]
    fifteen: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Fill {
    used_bytes: Option<u64>,
    total_bytes: Option<u64>,
    pct: Option<f64>,
}

/// The storage pool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerStorage)]
struct Storage {
    #[serde(flatten)]
    fill: Fill,
    /// `ok`, or `warning` from 80 % on, `critical` from 90 % on, `full` from 95 % on: nothing new is begun then. Left only
    /// 3 % below.
    health: Option<&'static str>,
    /// Errors that the kernel has counted on its devices.
    device_errors: Option<u64>,
}

/// The word for the highest threshold that is passed.
fn health(level: i64) -> &'static str {
    match level {
        ..80 => "ok",
        80..90 => "warning",
        90..95 => "critical",
        _ => "full",
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Swap {
    used_bytes: Option<u64>,
    total_bytes: Option<u64>,
}

/// A measurement of a whole server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RuntimeData {
    /// Always `server`.
    scope: &'static str,
    /// When it was measured.
    ts: String,
    /// How long ago it arrived.
    cache_age_ms: u64,
    /// Older than it should be: the server is offline or slow.
    stale: bool,
    cores: Option<u32>,
    cpu: CpuRuntime,
    load: Load,
    mem: Fill,
    swap: Swap,
    storage: Storage,
    uptime_s: Option<u64>,
}

/// What a node claims may be nonsense; JSON has no word for it.
fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

fn fill(amounts: Option<(u64, u64)>) -> Fill {
    let pct = |(used, total): (u64, u64)| (total > 0).then(|| (used as f64 / total as f64 * 1000.0).round() / 10.0);
    Fill {
        used_bytes: amounts.map(|(used, _)| used),
        total_bytes: amounts.map(|(_, total)| total),
        pct: amounts.and_then(pct),
    }
}

impl From<Runtime> for RuntimeData {
    fn from(runtime: Runtime) -> Self {
        let stats = runtime.stats;
        let load = |index: usize| stats.and_then(|stats| finite(stats.load[index]));
        Self {
            scope: "server",
            ts: rfc3339(runtime.taken_at),
            cache_age_ms: runtime.age_ms,
            stale: runtime.stale,
            cores: stats.map(|s| s.cores).or(runtime.server.facts.map(|facts| facts.cpu_cores)),
            cpu: CpuRuntime { busy_pct: stats.and_then(|s| finite(s.cpu_busy_percent)) },
            load: Load { one: load(0), five: load(1), fifteen: load(2) },
            mem: fill(stats.map(|s| (s.memory_used_bytes, s.memory_total_bytes))),
            swap: Swap { used_bytes: stats.map(|s| s.swap_used_bytes), total_bytes: stats.map(|s| s.swap_total_bytes) },
            storage: Storage {
                fill: fill(stats.map(|s| (s.pool_used_bytes, s.pool_total_bytes))),
                health: stats.map(|_| health(runtime.pool_level)),
                device_errors: stats.map(|s| s.pool_device_errors),
            },
            uptime_s: stats.map(|s| s.uptime_s),
        }
    }
}
