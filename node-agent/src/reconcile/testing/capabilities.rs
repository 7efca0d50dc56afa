//! The traits over the kernel in memory, with the demands that the real ones make on order.

use super::{Damage, Faulted, Kernel, World};
use crate::{
    egress::{Egress, EgressError},
    firewall::{Answer, Firewall, FirewallError, Policy},
    images::{ImageError, Images, InUse},
    names::{self, Names},
    network::{Network, NetworkError, host_interface},
    ramdisk::{RamdiskError, Ramdisks, Wanted},
    runtime::{Bundle, CgroupStats, Mended, Process, Runtime, RuntimeError},
    shares::{Converged, ShareError, Shares},
    storage::{IdRange, Replacement, Storage, StorageError, Usage},
    transfer::{Incoming, TransferError, Transfers},
};
use async_trait::async_trait;
use hoody_protocol::{
    container::Limits,
    egress::{EgressStatus, Upstream},
    firewall::RuleCounter,
    id::{ContainerId, SnapshotId, TransferId},
    image::{Digest, ImageSpec},
    share::{ShareFailure, ShareMount, ShareProblem},
    snapshot::{HeldSnapshot, Origin},
    stats::NetworkStats,
};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

impl From<Faulted> for RuntimeError {
    fn from(_: Faulted) -> Self {
        Self::Config { reason: "fault".into() }
    }
}

impl From<Faulted> for StorageError {
    fn from(_: Faulted) -> Self {
        Self::CutOff { action: "fault", path: PathBuf::new() }
    }
}

impl From<Faulted> for NetworkError {
    fn from(_: Faulted) -> Self {
        Self::Interrupted { action: "fault" }
    }
}

impl From<Faulted> for FirewallError {
    fn from(_: Faulted) -> Self {
        Self::Configuration { reason: "fault".into() }
    }
}

impl From<Faulted> for ShareError {
    fn from(fault: Faulted) -> Self {
        Self::Blocked(fault.into())
    }
}

impl From<Faulted> for RamdiskError {
    fn from(fault: Faulted) -> Self {
        Self::Blocked(fault.into())
    }
}

#[async_trait]
impl Images for Kernel {
    async fn ensure(&self, image: &ImageSpec) -> Result<PathBuf, ImageError> {
        let done = self.step("image", |_| PathBuf::from("/image")).await;
        done.map_err(|_| ImageError::CutOff { image: image.digest })
    }

    async fn short_of_room(&self) {
        std::future::pending().await
    }

    async fn collect(&self, _in_use: InUse<'_>) -> Result<Vec<Digest>, ImageError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Transfers for Kernel {
    async fn receive(&self, _incoming: &Incoming) -> Result<PathBuf, TransferError> {
        let received = self.step("transfer", |_| PathBuf::from("/image")).await;
        received.map_err(|fault| TransferError::Storage(fault.into()))
    }

    async fn held(&self, container: ContainerId, transfer: TransferId) -> Result<Option<PathBuf>, StorageError> {
        let held = self.step("held", |world| world.received.contains_key(&(container, transfer))).await?;
        Ok(held.then(|| PathBuf::from(transfer.to_string())))
    }

    async fn keep(
        &self,
        container: ContainerId,
        transfer: TransferId,
        origin: Origin,
    ) -> Result<PathBuf, StorageError> {
        let content = self.world().content_of(origin).ok_or(StorageError::Missing { id: origin.container })?;
        let keep = |world: &mut World| _ = world.received.entry((container, transfer)).or_insert(content);
        self.step("keep", keep).await?;
        Ok(PathBuf::from(transfer.to_string()))
    }

    async fn forget(&self, container: ContainerId) -> Result<(), StorageError> {
        let forget = |world: &mut World| world.received.retain(|(of, _), _| *of != container);
        Ok(self.step("forget transfers", forget).await?)
    }
}

#[async_trait]
impl Storage for Kernel {
    async fn create(&self, id: ContainerId, image: &Path, disk_bytes: u64) -> Result<(), StorageError> {
        let effect = |world: &mut World| {
            let possible = world.roots.contains_key(&id) || image == Path::new("/image");
            world.demand(possible, "a root file system was made without its image");
            world.roots.insert(id, disk_bytes);
        };
        Ok(self.step("root", effect).await?)
    }

    async fn exists(&self, id: ContainerId) -> Result<bool, StorageError> {
        Ok(self.step("exists", |world| world.roots.contains_key(&id)).await?)
    }

    async fn mount(&self, id: ContainerId, _ids: IdRange) -> Result<PathBuf, StorageError> {
        let effect = |world: &mut World| {
            world.demand(world.roots.contains_key(&id), "mounted without a root file system");
            world.mounts.insert(id);
        };
        self.step("mount", effect).await?;
        Ok("/mounted".into())
    }

    async fn unmount(&self, id: ContainerId) -> Result<(), StorageError> {
        let effect = |world: &mut World| {
            world.demand(!world.is_alive(id), "unmounted below a running process");
            world.mounts.remove(&id);
        };
        Ok(self.step("unmount", effect).await?)
    }

    async fn delete(&self, id: ContainerId) -> Result<(), StorageError> {
        let effect = |world: &mut World| {
            world.demand(!world.mounts.contains(&id), "deleted while mounted");
            world.roots.remove(&id);
            world.contents.remove(&id);
            world.aside.remove(&id);
            world.snapshots.retain(|(of, _), _| *of != id);
        };
        Ok(self.step("delete", effect).await?)
    }

    async fn copy(
        &self,
        id: ContainerId,
        origin: Origin,
        kept: Option<&Path>,
        disk_bytes: u64,
    ) -> Result<(), StorageError> {
        let content = match origin.kept {
            Some(transfer) => self.world().received.get(&(id, transfer)).copied(),
            None => self.world().content_of(origin),
        };
        let content = content.ok_or(StorageError::Missing { id: origin.container })?;
        let effect = |world: &mut World| {
            world.demand(kept.is_some() == origin.kept.is_some(), "a copy is not made from what was kept for it");
            world.roots.insert(id, disk_bytes);
            world.contents.insert(id, content);
        };
        Ok(self.step("copy", effect).await?)
    }

    async fn take_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<u64, StorageError> {
        let effect = |world: &mut World| {
            world.demand(world.roots.contains_key(&id), "a snapshot of nothing");
            let content = world.contents.get(&id).copied().unwrap_or(0);
            world.snapshots.entry((id, snapshot)).or_insert(content);
            4096
        };
        Ok(self.step("take", effect).await?)
    }

    async fn receive_snapshot(
        &self,
        id: ContainerId,
        snapshot: SnapshotId,
        received: &Path,
    ) -> Result<(), StorageError> {
        let transfer: TransferId = received.to_string_lossy().parse().expect("a transfer's path");
        let effect = |world: &mut World| {
            world.demand(!world.roots.contains_key(&id), "a snapshot came after the root file system");
            let content = world.received.get(&(id, transfer)).copied().unwrap_or(0);
            world.snapshots.entry((id, snapshot)).or_insert(content);
        };
        Ok(self.step("take over", effect).await?)
    }

    async fn delete_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<(), StorageError> {
        Ok(self.step("drop", |world| _ = world.snapshots.remove(&(id, snapshot))).await?)
    }

    async fn snapshots(&self, id: ContainerId) -> Result<Vec<HeldSnapshot>, StorageError> {
        let look = |world: &mut World| {
            let held = world.snapshots.keys().filter(|(of, _)| *of == id);
            held.map(|(_, snapshot)| HeldSnapshot { id: *snapshot, exclusive_bytes: None }).collect()
        };
        Ok(self.step("snapshots", look).await?)
    }

    async fn receive(
        &self,
        id: ContainerId,
        _received: &Path,
        disk_bytes: u64,
        _same_machine: bool,
    ) -> Result<(), StorageError> {
        Ok(self.step("root", |world| _ = world.roots.insert(id, disk_bytes)).await?)
    }

    async fn swap_in(&self, id: ContainerId, with: &Replacement) -> Result<(), StorageError> {
        let content = match with {
            Replacement::Snapshot(snapshot) => {
                let missing = StorageError::NoSnapshot { id, snapshot: *snapshot };
                self.world().snapshots.get(&(id, *snapshot)).copied().ok_or(missing)?
            }
            Replacement::Other { path, .. } => {
                let transfer: TransferId = path.to_string_lossy().parse().expect("a transfer's path");
                self.world().received.get(&(id, transfer)).copied().unwrap_or(0)
            }
        };
        let effect = |world: &mut World| {
            world.demand(!world.is_alive(id) && !world.mounts.contains(&id), "swapped below a running container");
            if !world.aside.contains_key(&id) {
                let before = world.contents.insert(id, content).unwrap_or(0);
                world.aside.insert(id, before);
            }
        };
        Ok(self.step("swap", effect).await?)
    }

    async fn swap_back(&self, id: ContainerId) -> Result<(), StorageError> {
        let effect = |world: &mut World| {
            world.demand(!world.is_alive(id) && !world.mounts.contains(&id), "swapped back below a running container");
            if let Some(before) = world.aside.remove(&id) {
                world.contents.insert(id, before);
            }
        };
        Ok(self.step("swap back", effect).await?)
    }

    async fn is_aside(&self, id: ContainerId) -> Result<bool, StorageError> {
        Ok(self.world().aside.contains_key(&id))
    }

    async fn forget_aside(&self, id: ContainerId) -> Result<(), StorageError> {
        Ok(self.step("forget", |world| _ = world.aside.remove(&id)).await?)
    }

    async fn place_ssh_key(&self, id: ContainerId, key: Option<&str>) -> Result<(), StorageError> {
        let key = key.map(str::to_owned);
        let effect = |world: &mut World| {
            world.demand(world.roots.contains_key(&id), "a key without a root file system");
            world.ssh_keys.insert(id, key);
        };
        Ok(self.step("ssh key", effect).await?)
    }

    async fn usage(&self, _id: ContainerId) -> Result<Usage, StorageError> {
        Ok(Usage { used_bytes: 0, total_bytes: 0 })
    }

    async fn pool_usage(&self) -> Result<Usage, StorageError> {
        Ok(Usage { used_bytes: 0, total_bytes: 0 })
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, StorageError> {
        Ok(self.world().roots.keys().copied().collect())
    }
}

#[async_trait]
impl Runtime for Kernel {
    async fn create(&self, bundle: &Bundle) -> Result<i32, RuntimeError> {
        let effect = |world: &mut World| {
            world.demand(world.mounts.contains(&bundle.id), "created without its root file system mounted");
            if let Some(Process::Created { pid }) = world.processes.get(&bundle.id) {
                return *pid;
            }
            world.demand(!world.is_alive(bundle.id), "created while one runs");
            world.pids += 1;
            let pid = world.pids;
            world.unmonitored.remove(&bundle.id);
            world.processes.insert(bundle.id, Process::Created { pid });
            world.bundles.insert(bundle.id, bundle.clone());
            world.limits.insert(bundle.id, bundle.limits);
            pid
        };
        Ok(self.step("create", effect).await?)
    }

    async fn start(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            world.demand(world.links.contains_key(&id), "started without its link");
            world.demand(world.rules.contains_key(&id), "started without its policy");
            let Some(Process::Created { pid }) = world.processes.get(&id).cloned() else {
                return world.demand(false, "started what is not made");
            };
            world.processes.insert(id, Process::Running { pid });
            world.starts += 1;
        };
        Ok(self.step("start", effect).await?)
    }

    async fn state(&self, id: ContainerId) -> Result<Process, RuntimeError> {
        let look = |world: &mut World| world.processes.get(&id).cloned().unwrap_or(Process::Absent);
        Ok(self.step("state", look).await?)
    }

    async fn mend(&self, bundle: &Bundle) -> Result<Mended, RuntimeError> {
        let look = |world: &mut World| Mended {
            files: world.bundles.insert(bundle.id, bundle.clone()).is_none(),
            disk_rates: false,
            monitored: !world.unmonitored.contains(&bundle.id),
        };
        Ok(self.step("mend", look).await?)
    }

    async fn signal_stop(&self, id: ContainerId, force: bool) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            if world.is_alive(id) && (force || !world.stubborn) {
                let code = Some(if force { 137 } else { 143 });
                world.processes.insert(id, Process::Exited { code, oom_killed: false });
            }
        };
        Ok(self.step(if force { "kill" } else { "stop" }, effect).await?)
    }

    async fn pause(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            if let Some(Process::Running { pid }) = world.processes.get(&id).cloned() {
                world.processes.insert(id, Process::Paused { pid });
            }
        };
        Ok(self.step("pause", effect).await?)
    }

    async fn resume(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            if let Some(Process::Paused { pid }) = world.processes.get(&id).cloned() {
                world.processes.insert(id, Process::Running { pid });
            }
        };
        Ok(self.step("resume", effect).await?)
    }

    async fn delete(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            world.processes.remove(&id);
            world.bundles.remove(&id);
        };
        Ok(self.step("remove", effect).await?)
    }

    async fn forget(&self, _id: ContainerId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn wait(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let mut changed = self.0.changed.subscribe();
        while self.world().is_alive(id) {
            if changed.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn update_limits(&self, id: ContainerId, limits: &Limits) -> Result<(), RuntimeError> {
        let effect = |world: &mut World| {
            world.limits.insert(id, *limits);
        };
        Ok(self.step("limits", effect).await?)
    }

    async fn oom_kills(&self, _id: ContainerId) -> Result<u64, RuntimeError> {
        Ok(self.step("kills", |world| world.oom_kills).await?)
    }

    async fn stats(&self, _id: ContainerId) -> Result<CgroupStats, RuntimeError> {
        Ok(CgroupStats::default())
    }

    async fn inspect(&self, _id: ContainerId) -> Result<Option<hoody_protocol::inspection::Inspection>, RuntimeError> {
        Ok(None)
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        Ok(self.world().processes.keys().copied().collect())
    }
}

#[async_trait]
impl Network for Kernel {
    async fn prepare(&self) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn attach(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<(), NetworkError> {
        if self.world().exiting {
            return Err(NetworkError::OpenNamespace { pid, source: std::io::ErrorKind::NotFound.into() });
        }
        let effect = |world: &mut World| {
            let stands = world.rules.contains_key(&id);
            world.demand_unless(Damage::Rules, stands, "attached before its policy stood");
            world.unseen.remove(&Damage::Link);
            let target = match world.processes.get(&id) {
                Some(Process::Created { pid } | Process::Running { pid } | Process::Paused { pid }) => Some(*pid),
                _ => None,
            };
            // The process may have ended a moment ago; another one's pid would be a mistake.
            world.demand(target.is_none_or(|target| target == pid), "attached to another process");
            world.links.insert(id, address);
            world.rates.remove(&id);
        };
        Ok(self.step("attach", effect).await?)
    }

    async fn limit_rate(&self, id: ContainerId, pid: i32, mbit: Option<u32>) -> Result<(), NetworkError> {
        if self.world().exiting {
            return Err(NetworkError::OpenNamespace { pid, source: std::io::ErrorKind::NotFound.into() });
        }
        let effect = |world: &mut World| {
            let stands = world.links.contains_key(&id);
            world.demand_unless(Damage::Link, stands, "a rate without a link");
            world.rates.insert(id, mbit);
        };
        Ok(self.step("rate", effect).await?)
    }

    async fn is_rate_limited(&self, id: ContainerId, _pid: i32, mbit: u32) -> Result<bool, NetworkError> {
        Ok(self.step("rate?", |world| world.rates.get(&id) == Some(&Some(mbit))).await?)
    }

    async fn is_attached(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<bool, NetworkError> {
        if self.world().exiting {
            self.step("attached?", |_| ()).await?;
            return Err(NetworkError::OpenNamespace { pid, source: std::io::ErrorKind::NotFound.into() });
        }
        let look = |world: &mut World| {
            world.unseen.remove(&Damage::Link);
            world.links.get(&id) == Some(&address)
        };
        Ok(self.step("attached?", look).await?)
    }

    async fn detach(&self, id: ContainerId) -> Result<(), NetworkError> {
        let effect = |world: &mut World| {
            world.links.remove(&id);
        };
        Ok(self.step("detach", effect).await?)
    }

    async fn stats(&self, _id: ContainerId) -> Result<Option<NetworkStats>, NetworkError> {
        Ok(None)
    }

    async fn inventory(&self) -> Result<Vec<String>, NetworkError> {
        Ok(self.world().links.keys().map(|id| host_interface(*id)).collect())
    }
}

#[async_trait]
impl Firewall for Kernel {
    async fn prepare(&self) -> Result<(), FirewallError> {
        Ok(self.step("prepare", |world| world.prepared = true).await?)
    }

    async fn is_prepared(&self) -> Result<bool, FirewallError> {
        Ok(self.step("prepared?", |world| world.prepared).await?)
    }

    async fn close_endpoints(&self, _: Vec<std::net::SocketAddrV4>) -> Result<(), FirewallError> {
        Ok(())
    }

    async fn changed(&self) {
        self.news().notified().await;
    }

    async fn apply(&self, policy: &Policy) -> Result<(), FirewallError> {
        let effect = |world: &mut World| {
            world.rules.insert(policy.id, policy.rules.clone());
            world.egress.insert(policy.id, policy.egress);
            world.applied.insert(policy.id);
        };
        Ok(self.step("policy", effect).await?)
    }

    async fn is_applied(&self, id: ContainerId) -> Result<bool, FirewallError> {
        let look = |world: &mut World| {
            world.unseen.remove(&Damage::Rules);
            world.applied.contains(&id) && world.rules.contains_key(&id)
        };
        Ok(self.step("applied?", look).await?)
    }

    async fn remove(&self, id: ContainerId) -> Result<(), FirewallError> {
        let effect = |world: &mut World| {
            world.demand(!world.links.contains_key(&id), "policy removed before the link");
            world.demand(!world.is_alive(id), "policy removed before the processes");
            world.rules.remove(&id);
            world.egress.remove(&id);
            world.applied.remove(&id);
        };
        Ok(self.step("unpolicy", effect).await?)
    }

    async fn resolved(&self, _: ContainerId, _: &str, _: Answer) -> Result<(), FirewallError> {
        Ok(())
    }

    async fn counters(&self, _id: ContainerId) -> Result<Vec<RuleCounter>, FirewallError> {
        Ok(Vec::new())
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, FirewallError> {
        Ok(self.world().rules.keys().copied().collect())
    }
}

/// Not a step of its own: it never fails, and what it does is asked for again by every pass.
#[async_trait]
impl Names for Kernel {
    async fn set(&self, id: ContainerId, hosts: BTreeSet<String>, path: names::Path) {
        let mut world = self.world();
        if hosts.is_empty() {
            world.names.remove(&id);
        } else {
            world.names.insert(id, (hosts, path));
        }
    }
}

/// Not a step of its own: it never fails, and what it does is asked for again by every pass.
#[async_trait]
impl Egress for Kernel {
    async fn prepare(&self) -> Result<(), EgressError> {
        Ok(())
    }

    async fn set(&self, id: ContainerId, _address: Ipv4Addr, upstream: Option<&Upstream>) {
        let mut world = self.world();
        match upstream {
            Some(upstream) => {
                let captured = matches!(world.egress.get(&id), Some(crate::firewall::Egress::Proxy(_)));
                world.demand(captured, "relayed before its packets were taken");
                world.relayed.insert(id, upstream.clone());
            }
            None => _ = world.relayed.remove(&id),
        }
    }

    fn status(&self, id: ContainerId) -> Option<EgressStatus> {
        self.world().relayed.get(&id).map(|_| EgressStatus { working: true, cause: None })
    }

    async fn changed(&self) -> ContainerId {
        std::future::pending().await
    }

    async fn retain(&self, _known: BTreeSet<ContainerId>) {}
}

/// A step only where there is something to mount or to unmount: most containers share nothing.
#[async_trait]
impl Shares for Kernel {
    async fn converge(&self, id: ContainerId, _ids: IdRange, wanted: &[ShareMount]) -> Result<Converged, ShareError> {
        let mut converged = Converged { folder: "/shares".into(), ..Converged::default() };
        if wanted.is_empty() && !self.world().shares.contains_key(&id) {
            return Ok(converged);
        }
        let effect = |world: &mut World| {
            let before = world.shares.remove(&id).unwrap_or_default();
            let (there, missing): (Vec<_>, Vec<_>) =
                wanted.iter().cloned().partition(|share| !world.lost_sources.contains(&share.source));
            let failed = |share: ShareMount| ShareFailure { id: share.id, problem: ShareProblem::SourceMissing };
            converged.failures = missing.into_iter().map(failed).collect();
            let where_it_is = |share: &ShareMount| (share.id, share.name.clone(), share.place.clone());
            let anew = there.iter().filter(|share| before.iter().all(|old| where_it_is(old) != where_it_is(share)));
            converged.mounted = anew.map(|share| share.id).collect();
            if !wanted.is_empty() {
                world.shares.insert(id, there);
            }
            converged
        };
        Ok(self.step("shares", effect).await?)
    }

    async fn is_visible(&self, id: ContainerId, _pid: i32) -> Result<bool, ShareError> {
        Ok(!self.world().without_folder.contains(&id))
    }

    async fn takes_places(&self, id: ContainerId, _pid: i32) -> Result<bool, ShareError> {
        Ok(!self.world().without_places.contains(&id))
    }

    async fn clear(&self, id: ContainerId) -> Result<(), ShareError> {
        if self.world().shares.contains_key(&id) {
            let effect = |world: &mut World| {
                world.demand(!world.is_alive(id), "shares taken from a running container");
                world.shares.remove(&id);
            };
            self.step("unshare", effect).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Ramdisks for Kernel {
    async fn ensure(&self, id: ContainerId, _ids: IdRange, wanted: Wanted) -> Result<PathBuf, RamdiskError> {
        let effect = |world: &mut World| {
            world.demand(!world.is_alive(id), "a RAM disk below a running container");
            world.ramdisks.insert(id, wanted);
            PathBuf::from("/disk")
        };
        Ok(self.step("ramdisk", effect).await?)
    }

    async fn usage(&self, _id: ContainerId) -> Result<Option<Usage>, RamdiskError> {
        Ok(None)
    }

    async fn remove(&self, id: ContainerId) -> Result<(), RamdiskError> {
        if self.world().ramdisks.contains_key(&id) {
            let effect = |world: &mut World| {
                world.demand(!world.is_alive(id), "a RAM disk taken from a running container");
                world.ramdisks.remove(&id);
            };
            self.step("no ramdisk", effect).await?;
        }
        Ok(())
    }
}
