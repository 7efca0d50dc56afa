//! The sampler against capabilities that answer, fail or hang, in virtual time.

use super::*;
use crate::{
    firewall::{FirewallError, Policy},
    network::NetworkError,
    ramdisk::{RamdiskError, Wanted},
    runtime::{Bundle, CgroupStats, Mended, Process, RuntimeError},
    storage::{IdRange, Replacement, StorageError, Usage},
};
use async_trait::async_trait;
use hoody_protocol::{
    bounded::Text,
    codec,
    container::Limits,
    id::{RuleId, SnapshotId},
    snapshot::{HeldSnapshot, Origin},
    stats::NetworkStats,
    tag::Message,
};
use std::{
    future::pending,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// How the fake capabilities behave, per container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    Fails,
    Hangs,
}

#[derive(Debug)]
struct Node {
    moods: HashMap<ContainerId, Mood>,
    cpu_usage_ns: Mutex<u64>,
    counters: usize,
}

impl Node {
    async fn answer<T, E>(&self, id: ContainerId, value: T, error: impl Fn(io::Error) -> E) -> Result<T, E> {
        match self.moods.get(&id).copied().unwrap_or(Mood::Answers) {
            Mood::Answers => Ok(value),
            Mood::Fails => Err(error(io::ErrorKind::NotFound.into())),
            Mood::Hangs => pending().await,
        }
    }
}

#[async_trait]
impl Runtime for Node {
    async fn oom_kills(&self, _: ContainerId) -> Result<u64, RuntimeError> {
        unreachable!()
    }

    async fn stats(&self, id: ContainerId) -> Result<CgroupStats, RuntimeError> {
        let usage = *self.cpu_usage_ns.lock().unwrap();
        let stats =
            CgroupStats { cpu_usage_ns: Some(usage), memory_bytes: Some(11), processes: Some(3), ..Default::default() };
        self.answer(id, stats, |source| RuntimeError::Io { action: "read", path: "/".into(), source }).await
    }
    async fn create(&self, _: &Bundle) -> Result<i32, RuntimeError> {
        unreachable!()
    }
    async fn mend(&self, _: &Bundle) -> Result<Mended, RuntimeError> {
        unreachable!()
    }
    async fn start(&self, _: ContainerId) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn state(&self, _: ContainerId) -> Result<Process, RuntimeError> {
        unreachable!()
    }
    async fn signal_stop(&self, _: ContainerId, _: bool) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn pause(&self, _: ContainerId) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn resume(&self, _: ContainerId) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn delete(&self, _: ContainerId) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn forget(&self, _: ContainerId) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn wait(&self, _: ContainerId) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn update_limits(&self, _: ContainerId, _: &Limits) -> Result<(), RuntimeError> {
        unreachable!()
    }
    async fn inspect(&self, _id: ContainerId) -> Result<Option<hoody_protocol::inspection::Inspection>, RuntimeError> {
        Ok(None)
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        unreachable!()
    }
}

#[async_trait]
impl Storage for Node {
    async fn place_ssh_key(&self, _id: ContainerId, _key: Option<&str>) -> Result<(), StorageError> {
        Ok(())
    }

    async fn usage(&self, id: ContainerId) -> Result<Usage, StorageError> {
        let usage = Usage { used_bytes: 22, total_bytes: 100 };
        self.answer(id, usage, |source| StorageError::Io { action: "read", path: "/".into(), source }).await
    }
    async fn create(&self, _: ContainerId, _: &Path, _: u64) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn exists(&self, _: ContainerId) -> Result<bool, StorageError> {
        unreachable!()
    }
    async fn mount(&self, _: ContainerId, _: IdRange) -> Result<PathBuf, StorageError> {
        unreachable!()
    }
    async fn unmount(&self, _: ContainerId) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn delete(&self, _: ContainerId) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn copy(&self, _: ContainerId, _: Origin, _: Option<&Path>, _: u64) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn take_snapshot(&self, _: ContainerId, _: SnapshotId) -> Result<u64, StorageError> {
        unreachable!()
    }
    async fn receive_snapshot(&self, _: ContainerId, _: SnapshotId, _: &Path) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn delete_snapshot(&self, _: ContainerId, _: SnapshotId) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn snapshots(&self, _: ContainerId) -> Result<Vec<HeldSnapshot>, StorageError> {
        unreachable!()
    }
    async fn receive(&self, _: ContainerId, _: &Path, _: u64, _: bool) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn swap_in(&self, _: ContainerId, _: &Replacement) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn swap_back(&self, _: ContainerId) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn is_aside(&self, _: ContainerId) -> Result<bool, StorageError> {
        unreachable!()
    }
    async fn forget_aside(&self, _: ContainerId) -> Result<(), StorageError> {
        unreachable!()
    }
    async fn pool_usage(&self) -> Result<Usage, StorageError> {
        unreachable!()
    }
    async fn inventory(&self) -> Result<Vec<ContainerId>, StorageError> {
        unreachable!()
    }
}

#[async_trait]
impl Ramdisks for Node {
    async fn ensure(&self, _: ContainerId, _: IdRange, _: Wanted) -> Result<PathBuf, RamdiskError> {
        unreachable!()
    }
    async fn usage(&self, id: ContainerId) -> Result<Option<Usage>, RamdiskError> {
        let usage = Usage { used_bytes: 44, total_bytes: 55 };
        self.answer(id, Some(usage), |error| RamdiskError::io("measure", Path::new("/ramdisk"))(error)).await
    }
    async fn remove(&self, _: ContainerId) -> Result<(), RamdiskError> {
        unreachable!()
    }
}

#[async_trait]
impl Network for Node {
    async fn stats(&self, id: ContainerId) -> Result<Option<NetworkStats>, NetworkError> {
        let stats = NetworkStats {
            interface: Text::truncated("eth0"),
            address: None,
            received_bytes: 33,
            sent_bytes: 0,
            received_packets: 0,
            sent_packets: 0,
            received_errors: 0,
            sent_errors: 0,
            received_dropped: 0,
            sent_dropped: 0,
        };
        self.answer(id, Some(stats), |source| NetworkError::Io { action: "read", path: "/".into(), source }).await
    }
    async fn prepare(&self) -> Result<(), NetworkError> {
        unreachable!()
    }
    async fn attach(&self, _: ContainerId, _: i32, _: Ipv4Addr) -> Result<(), NetworkError> {
        unreachable!()
    }
    async fn is_rate_limited(&self, _: ContainerId, _: i32, _: u32) -> Result<bool, NetworkError> {
        unreachable!()
    }
    async fn limit_rate(&self, _: ContainerId, _: i32, _: Option<u32>) -> Result<(), NetworkError> {
        unreachable!()
    }

    async fn is_attached(&self, _: ContainerId, _: i32, _: Ipv4Addr) -> Result<bool, NetworkError> {
        unreachable!()
    }
    async fn detach(&self, _: ContainerId) -> Result<(), NetworkError> {
        unreachable!()
    }
    async fn inventory(&self) -> Result<Vec<String>, NetworkError> {
        unreachable!()
    }
}

/// The firewall always answers: one part that works beside others that do not.
#[async_trait]
impl Firewall for Node {
    async fn counters(&self, _: ContainerId) -> Result<Vec<RuleCounter>, FirewallError> {
        Ok(vec![RuleCounter { rule: RuleId::from_bytes([0; 12]), packets: u64::MAX, bytes: u64::MAX }; self.counters])
    }
    async fn prepare(&self) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn close_endpoints(&self, _: Vec<std::net::SocketAddrV4>) -> Result<(), FirewallError> {
        unreachable!()
    }

    async fn changed(&self) {
        unreachable!()
    }
    async fn is_prepared(&self) -> Result<bool, FirewallError> {
        unreachable!()
    }
    async fn resolved(&self, _: ContainerId, _: &str, _: crate::firewall::Answer) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn apply(&self, _: &Policy) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn is_applied(&self, _: ContainerId) -> Result<bool, FirewallError> {
        unreachable!()
    }
    async fn remove(&self, _: ContainerId) -> Result<(), FirewallError> {
        unreachable!()
    }
    async fn inventory(&self) -> Result<Vec<ContainerId>, FirewallError> {
        unreachable!()
    }
}

fn sampler(moods: &[(ContainerId, Mood)], counters: usize) -> (ContainerSampler, Arc<Node>) {
    let node = Arc::new(Node { moods: moods.iter().copied().collect(), cpu_usage_ns: Mutex::new(0), counters });
    let sources = Sources {
        runtime: node.clone(),
        storage: node.clone(),
        ramdisks: node.clone(),
        network: node.clone(),
        firewall: node.clone(),
    };
    (ContainerSampler::new(sources), node)
}

fn ids(count: usize) -> Vec<ContainerId> {
    (0..count).map(|_| ContainerId::generate()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_parts_are_put_together() {
    let (mut sampler, _) = sampler(&[], 1);
    let id = ids(1);
    let stats = sampler.sample(&id).await.remove(0);
    assert_eq!(stats.container, id[0]);
    assert_eq!((stats.cpu_usage_ns, stats.cpu_percent), (Some(0), None));
    assert_eq!((stats.memory_bytes, stats.processes, stats.disk_bytes), (Some(11), Some(3), Some(22)));
    assert_eq!((stats.memory_peak_bytes, stats.swap_bytes), (None, None));
    assert_eq!(stats.ramdisk, Some(RamdiskStats { used_bytes: 44, total_bytes: 55 }));
    assert_eq!(stats.network.unwrap().received_bytes, 33);
    assert_eq!(stats.rules.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn processor_share_is_that_between_two_samples() {
    let (mut sampler, node) = sampler(&[], 0);
    let ids = ids(1);
    sampler.sample(&ids).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    *node.cpu_usage_ns.lock().unwrap() = 15_000_000_000;
    assert_eq!(sampler.sample(&ids).await[0].cpu_percent, Some(150.0));
    // No time, then a counter that began anew, then a container that was not watched for a while.
    assert_eq!(sampler.sample(&ids).await[0].cpu_percent, None);
    tokio::time::advance(Duration::from_secs(10)).await;
    *node.cpu_usage_ns.lock().unwrap() = 5;
    assert_eq!(sampler.sample(&ids).await[0].cpu_percent, None);
    sampler.sample(&[]).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(sampler.sample(&ids).await[0].cpu_percent, None);
}

#[tokio::test(start_paused = true)]
async fn what_fails_or_hangs_concerns_only_itself() {
    let ids = ids(3);
    let (mut sampler, _) = sampler(&[(ids[0], Mood::Hangs), (ids[1], Mood::Fails)], 1);
    let start = Instant::now();
    let stats = sampler.sample(&ids).await;
    assert_eq!(start.elapsed(), PART_DEADLINE);
    assert_eq!(stats.iter().map(|stats| stats.container).collect::<Vec<_>>(), ids);
    for broken in &stats[..2] {
        assert_eq!((broken.cpu_usage_ns, broken.memory_bytes, broken.disk_bytes), (None, None, None));
        assert_eq!((&broken.network, broken.rules.len()), (&None, 1));
    }
    assert_eq!((stats[2].memory_bytes, stats[2].disk_bytes), (Some(11), Some(22)));
}

#[tokio::test(start_paused = true)]
async fn counters_and_batches_keep_to_their_limits() {
    let (mut lively, _) = sampler(&[], MAX_COUNTERS + 1);
    let (mut quiet, _) = sampler(&[], 0);
    let split = |containers: Vec<ContainerStats>| batches(u64::MAX, NodeStats::default(), containers);
    let sizes = |batches: Vec<StatsBatch>| batches.iter().map(|batch| batch.containers.len()).collect::<Vec<_>>();

    let stats = quiet.sample(&ids(MAX_BATCH + 1)).await;
    assert_eq!(sizes(split(stats.clone())), [MAX_BATCH, 1]);
    assert_eq!(sizes(split(stats[..MAX_BATCH].to_vec())), [MAX_BATCH]);
    assert_eq!(sizes(split(Vec::new())), [0]);

    let stats = lively.sample(&ids(MAX_BATCH)).await;
    assert!(stats.iter().all(|stats| stats.rules.len() == MAX_COUNTERS));
    let batches = split(stats);
    for batch in &batches {
        let bytes = codec::encode(batch).len() - codec::HEADER_BYTES;
        assert!(bytes <= StatsBatch::MAX_BYTES, "{bytes} bytes");
    }
    assert_eq!(sizes(batches), [MAX_BATCH / 2, MAX_BATCH / 2]);
}
