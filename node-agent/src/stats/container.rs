//! Containers: what each capability knows of one, put together. A part that fails or takes too long is
//! `None` in that container's numbers and concerns nobody else.

use crate::{firewall::Firewall, network::Network, ramdisk::Ramdisks, runtime::Runtime, storage::Storage};
use futures::{StreamExt, stream};
use hoody_protocol::{
    bounded::List,
    firewall::{MAX_RULES, RuleCounter},
    id::ContainerId,
    stats::{ContainerStats, MAX_BATCH, NodeStats, StatsBatch},
    time::UnixMs,
};
use std::{collections::HashMap, error::Error, future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The time each part of a container's measurement may take; the parts are taken together, so a
/// container takes no longer.
const PART_DEADLINE: Duration = Duration::from_secs(1);
/// Containers measured at one time.
const PARALLEL: usize = 16;
/// Rule counters of one container that a batch can carry.
const MAX_COUNTERS: usize = MAX_RULES * 2;

/// Rule counters in one batch: they are most of a message, whose bytes are limited too.
const MAX_BATCH_COUNTERS: usize = MAX_BATCH * MAX_RULES;

/// Who knows what.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Processor time, memory and processes.
    pub runtime: Arc<dyn Runtime>,
    /// Disk usage.
    pub storage: Arc<dyn Storage>,
    /// Link counters.
    pub network: Arc<dyn Network>,
    /// Rule counters.
    pub firewall: Arc<dyn Firewall>,
    /// What is in RAM disks.
    pub ramdisks: Arc<dyn Ramdisks>,
}

/// Measures containers; remembers the processor counters of the last time.
#[derive(Debug)]
pub struct ContainerSampler {
    sources: Sources,
    before: HashMap<ContainerId, CpuReading>,
}

/// A container's processor counter at one time.
#[derive(Debug, Clone, Copy)]
struct CpuReading {
    usage_ns: u64,
    at: Instant,
}

impl ContainerSampler {
    /// A sampler over these capabilities.
    pub fn new(sources: Sources) -> Self {
        Self { sources, before: HashMap::new() }
    }

    /// Measures these containers, in this order. Whatever is not among them is forgotten, so `containers`
    /// is all that are to be watched.
    pub async fn sample(&mut self, containers: &[ContainerId]) -> Vec<ContainerStats> {
        let sources = &self.sources;
        let measured: Vec<_> =
            stream::iter(containers.to_vec()).map(|id| measure(sources, id)).buffered(PARALLEL).collect().await;
        let mut readings = HashMap::with_capacity(measured.len());
        let mut stats = Vec::with_capacity(measured.len());
        for (mut container, reading) in measured {
            if let Some(reading) = reading {
                let before = self.before.get(&container.container);
                container.cpu_percent = before.and_then(|before| cpu_percent(*before, reading));
                readings.insert(container.container, reading);
            }
            stats.push(container);
        }
        self.before = readings;
        stats
    }
}

/// Splits containers into batches that the link carries, each with the node's numbers. At least one.
pub fn batches(at: UnixMs, node: NodeStats, containers: Vec<ContainerStats>) -> Vec<StatsBatch> {
    let mut batches = Vec::with_capacity(containers.len() / MAX_BATCH + 1);
    let mut containers = containers.into_iter().peekable();
    while batches.is_empty() || containers.peek().is_some() {
        let (mut count, mut counters) = (0, 0);
        // A single container is always below both limits, so that each batch takes at least one.
        let mut next = std::iter::from_fn(|| {
            let fits = |container: &ContainerStats| {
                count += 1;
                counters += container.rules.len();
                count <= MAX_BATCH && counters <= MAX_BATCH_COUNTERS
            };
            containers.next_if(fits)
        });
        batches.push(StatsBatch { at, node, containers: bounded(&mut next) });
    }
    batches
}

async fn measure(sources: &Sources, id: ContainerId) -> (ContainerStats, Option<CpuReading>) {
    let cgroup = async { sources.runtime.stats(id).await.map(|stats| (stats, Instant::now())) };
    let (cgroup, disk, network, rules, ramdisk) = tokio::join!(
        part(id, "cgroup", cgroup),
        part(id, "disk", sources.storage.usage(id)),
        part(id, "network", sources.network.stats(id)),
        part(id, "firewall", sources.firewall.counters(id)),
        part(id, "RAM disk", sources.ramdisks.usage(id)),
    );
    let reading = cgroup.and_then(|(stats, at)| stats.cpu_usage_ns.map(|usage_ns| CpuReading { usage_ns, at }));
    let cgroup = cgroup.map(|(stats, _)| stats).unwrap_or_default();
    let stats = ContainerStats {
        container: id,
        cpu_usage_ns: cgroup.cpu_usage_ns,
        cpu_percent: None,
        memory_bytes: cgroup.memory_bytes,
        memory_peak_bytes: cgroup.memory_peak_bytes,
        swap_bytes: cgroup.swap_bytes,
        disk_bytes: disk.map(|usage| usage.used_bytes),
        processes: cgroup.processes,
        network: network.flatten(),
        rules: bounded::<RuleCounter, MAX_COUNTERS>(&mut rules.unwrap_or_default().into_iter()),
        ramdisk: ramdisk.flatten(),
    };
    (stats, reading)
}

/// One part, `None` where it failed or took too long.
async fn part<T, E: Error + 'static>(
    container: ContainerId,
    part: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    match tokio::time::timeout(PART_DEADLINE, work).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::debug!(%container, part, error = &error as &dyn Error, "not measured");
            None
        }
        Err(_) => {
            tracing::debug!(%container, part, "not measured in time");
            None
        }
    }
}

/// The share of one core between two readings, in percent. `None` where no time has passed, or the
/// counter went back because the container was started anew.
fn cpu_percent(before: CpuReading, after: CpuReading) -> Option<f64> {
    let used = after.usage_ns.checked_sub(before.usage_ns)?;
    let elapsed = after.at.checked_duration_since(before.at)?.as_nanos();
    (elapsed > 0).then(|| used as f64 / elapsed as f64 * 100.0)
}

/// The next items, as many as the list holds.
fn bounded<T, const MAX: usize>(items: &mut impl Iterator<Item = T>) -> List<T, MAX> {
    List::try_from(items.take(MAX).collect::<Vec<_>>()).unwrap_or_default()
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
