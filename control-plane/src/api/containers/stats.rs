//! What a container uses: the node's last measurement, in the contract's shape. While nothing runs, or
//! nothing was measured yet, `cpu` and `memory` are null and counters 0.

use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        path::Id,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    nodes::Measured,
    service::container as service,
    store::container::{ContainerRow, Status},
};
use axum::extract::State;
use hoody_protocol::{
    id::ContainerId,
    share::RamdiskScope,
    stats::{ContainerStats, NetworkStats, RamdiskStats},
    time::now_ms,
};
use serde::Serialize;
use std::time::Instant;
use utoipa::ToSchema;

/// What a container uses.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    id: String,
    project_id: String,
    project_name: String,
    server_name: String,
    status: &'static str,
    /// 103 running, 102 stopped, 110 frozen, 112 error, 100 being created, 107 being deleted.
    status_code: u16,
    /// When the first process started; empty while none runs.
    started_at: String,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
    disk: Disk,
    /// Its RAM disk; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ramdisk: Option<Ramdisk>,
    network: Vec<Network>,
    processes: u32,
    /// How long this answer took to make.
    processing_time: String,
    /// When this was measured; null: not yet.
    measured_at: Option<String>,
    /// How old the measurement is.
    measured_age_ms: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ContainerCpu)]
struct Cpu {
    /// Nanoseconds of processor time it may use in a second.
    allocated_time: u64,
    /// Nanoseconds of processor time used since its start.
    usage: u64,
    /// Share of what it may use.
    usage_percent: f64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Memory {
    usage: u64,
    usage_peak: u64,
    total: u64,
    usage_percent: f64,
    swap_usage: u64,
    swap_usage_peak: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Ramdisk {
    /// `container` or `project`.
    scope: &'static str,
    /// Size of the disk that the containers of the project share; null where it is the container's own.
    shared_pool_maximum: Option<u64>,
    /// It is mounted: its size is taken of what the server has for RAM disks.
    capacity_reserved: bool,
    /// Null: not mounted, or not measured yet.
    usage: Option<RamdiskUsage>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RamdiskUsage {
    /// Bytes of its own disk.
    private: Option<u64>,
    /// Bytes of the disk that it shares.
    project: Option<u64>,
    /// The platform keeps no secrets there.
    secrets: Option<u64>,
}

fn ramdisk(scope: RamdiskScope, measured: Option<RamdiskStats>) -> Ramdisk {
    let shared = scope == RamdiskScope::Project;
    let used = |of: bool| measured.filter(|_| of).map(|stats| stats.used_bytes);
    Ramdisk {
        scope: if shared { "project" } else { "container" },
        shared_pool_maximum: measured.filter(|_| shared).map(|stats| stats.total_bytes),
        capacity_reserved: measured.is_some(),
        usage: measured.map(|_| RamdiskUsage { private: used(!shared), project: used(shared), secrets: None }),
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Disk {
    root: DiskUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct DiskUsage {
    usage: u64,
    total: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Network {
    interface: String,
    #[serde(rename = "type")]
    kind: &'static str,
    state: &'static str,
    addresses: Vec<Address>,
    counters: Counters,
}

#[derive(Debug, Serialize, ToSchema)]
struct Address {
    address: String,
    family: &'static str,
    netmask: &'static str,
    scope: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct Counters {
    bytes_received: u64,
    bytes_sent: u64,
    packets_received: u64,
    packets_sent: u64,
    errors_received: u64,
    errors_sent: u64,
    packets_dropped_inbound: u64,
    packets_dropped_outbound: u64,
}

/// Get a container's resource use
#[utoipa::path(get, path = "/api/v1/containers/{id}/stats", operation_id = "containers.getStats", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Stats>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
pub(super) async fn stats(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<Stats>, ServiceError> {
    let begun = Instant::now();
    let row = service::get(&app, &caller, id).await?;
    let measured = app.nodes.measured_container(row.server, id).await;
    Ok(Reply::ok(Stats::new(row, measured, begun), "here is what the container uses"))
}

impl Stats {
    /// What the container uses, from its row and its last measurement; work on the answer began at `begun`.
    pub fn new(row: ContainerRow, measured: Option<Measured<ContainerStats>>, begun: Instant) -> Self {
        let measured_at = measured.as_ref().map(|measured| measured.taken_at);
        let age = measured.as_ref().map(|measured| now_ms().saturating_sub(measured.received_at));
        let mut stats = view(row, measured.map(|measured| measured.value));
        stats.measured_at = measured_at.map(|at| rfc3339(at as i64));
        stats.measured_age_ms = age;
        stats.processing_time = format!("{:.3}ms", begun.elapsed().as_secs_f64() * 1000.0);
        stats
    }
}

fn view(row: ContainerRow, measured: Option<ContainerStats>) -> Stats {
    let limits = row.spec.limits;
    let runs = matches!(row.status, Status::Running | Status::Paused);
    let running = measured.as_ref().filter(|_| runs);
    let allowed = u64::from(limits.cpu_millis);
    let cpu = running.map(|stats| Cpu {
        allocated_time: allowed * 1_000_000,
        usage: stats.cpu_usage_ns.unwrap_or(0),
        usage_percent: share(stats.cpu_percent.unwrap_or(0.0), allowed),
    });
    let memory = running.map(|stats| {
        let usage = stats.memory_bytes.unwrap_or(0);
        let swap = stats.swap_bytes.unwrap_or(0);
        Memory {
            usage,
            usage_peak: stats.memory_peak_bytes.unwrap_or(usage),
            total: limits.memory_bytes,
            usage_percent: usage as f64 * 100.0 / limits.memory_bytes.max(1) as f64,
            swap_usage: swap,
            swap_usage_peak: swap,
        }
    });
    let started = row.report.as_ref().and_then(|report| report.started_at).filter(|_| runs);
    Stats {
        id: row.spec.id.to_string(),
        project_id: row.spec.project.to_string(),
        project_name: row.project_alias,
        server_name: row.server_info.name,
        status: row.status.as_str(),
        status_code: status_code(row.status),
        started_at: started.map(|at| rfc3339(at as i64)).unwrap_or_default(),
        cpu,
        memory,
        disk: Disk {
            root: DiskUsage {
                usage: measured.as_ref().and_then(|stats| stats.disk_bytes).unwrap_or(0),
                total: limits.disk_bytes,
            },
        },
        ramdisk: row.spec.ramdisk.map(|scope| ramdisk(scope, running.and_then(|stats| stats.ramdisk))),
        network: running.and_then(|stats| stats.network.as_ref()).map(network).into_iter().collect(),
        processes: running.and_then(|stats| stats.processes).unwrap_or(0),
        processing_time: String::new(),
        measured_at: None,
        measured_age_ms: None,
    }
}

/// The percentage of one core as a percentage of what is allowed. A node may say anything: what is no number
/// would be `null` in JSON.
fn share(percent: f64, allowed_millis: u64) -> f64 {
    let share = percent * 1000.0 / allowed_millis.max(1) as f64;
    if share.is_finite() { share.max(0.0) } else { 0.0 }
}

fn status_code(status: Status) -> u16 {
    match status {
        Status::Running => 103,
        Status::Stopped | Status::Deleted => 102,
        Status::Paused => 110,
        Status::Failed => 112,
        Status::Creating | Status::Copying | Status::Claiming => 100,
        Status::Deleting => 107,
    }
}

fn network(stats: &NetworkStats) -> Network {
    let address = |address: std::net::Ipv4Addr| Address {
        address: address.to_string(),
        family: "inet",
        netmask: "32",
        scope: "global",
    };
    Network {
        interface: stats.interface.to_string(),
        kind: "broadcast",
        state: "up",
        addresses: stats.address.map(address).into_iter().collect(),
        counters: Counters {
            bytes_received: stats.received_bytes,
            bytes_sent: stats.sent_bytes,
            packets_received: stats.received_packets,
            packets_sent: stats.sent_packets,
            errors_received: stats.received_errors,
            errors_sent: stats.sent_errors,
            packets_dropped_inbound: stats.received_dropped,
            packets_dropped_outbound: stats.sent_dropped,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_whatever_the_node_says() {
        assert_eq!(share(50.0, 500), 100.0);
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1.0] {
            assert_eq!(share(nonsense, 1), 0.0, "{nonsense}");
        }
    }
}
