//! Measurements, pushed in batches. They are never written to a database.

use crate::{
    bounded::{List, Text},
    firewall::{MAX_RULES, RuleCounter},
    id::ContainerId,
    time::UnixMs,
};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Containers in one batch; a node with more sends several batches.
pub const MAX_BATCH: usize = 256;

/// Measurements of a node and some of its containers at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatsBatch {
    /// When they were taken.
    pub at: UnixMs,
    /// The node as a whole.
    pub node: NodeStats,
    /// Containers.
    pub containers: List<ContainerStats, MAX_BATCH>,
}

/// A node's measurements.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeStats {
    /// Processor cores.
    pub cores: u32,
    /// Busy share of all cores since the last batch, in percent.
    pub cpu_busy_percent: f64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Physical memory.
    pub memory_total_bytes: u64,
    /// Physical memory in use (total less available).
    pub memory_used_bytes: u64,
    /// Swap.
    pub swap_total_bytes: u64,
    /// Swap in use.
    pub swap_used_bytes: u64,
    /// The storage pool.
    pub pool_total_bytes: u64,
    /// The storage pool in use.
    pub pool_used_bytes: u64,
    /// Seconds since the node booted.
    pub uptime_s: u64,
}

/// One container's measurements. What the kernel does not offer is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// The container.
    pub container: ContainerId,
    /// Processor time used since the start, nanoseconds.
    pub cpu_usage_ns: Option<u64>,
    /// Share of one core since the last batch, percent (200 is two whole cores).
    pub cpu_percent: Option<f64>,
    /// Memory in use.
    pub memory_bytes: Option<u64>,
    /// Highest memory use since the start.
    pub memory_peak_bytes: Option<u64>,
    /// Swap in use.
    pub swap_bytes: Option<u64>,
    /// Root file system in use.
    pub disk_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u32>,
    /// The container's network interface.
    pub network: Option<NetworkStats>,
    /// Counters of its firewall rules.
    pub rules: List<RuleCounter, { MAX_RULES * 2 }>,
    /// Its RAM disk, where it has one; a project's is told with each of its users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramdisk: Option<RamdiskStats>,
}

/// A RAM disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamdiskStats {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that fit into it.
    pub total_bytes: u64,
}

/// Counters of a network interface, seen from inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// Interface name inside the container.
    pub interface: Text<16>,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
    /// Packets that came in.
    pub received_packets: u64,
    /// Packets that went out.
    pub sent_packets: u64,
    /// Broken packets that came in.
    pub received_errors: u64,
    /// Packets that could not be sent.
    pub sent_errors: u64,
    /// Dropped on the way in.
    pub received_dropped: u64,
    /// Dropped on the way out.
    pub sent_dropped: u64,
}
