//! Images, transfers, root file systems, shares and RAM disks of the kernel in memory.

use super::{Faulted, Kernel, World};
use crate::{
    images::{ImageError, Images, InUse},
    ramdisk::{RamdiskError, Ramdisks, Wanted},
    shares::{Converged, ShareError, Shares},
    storage::{IdRange, Replacement, StageError, Storage, StorageError, Usage},
    transfer::{Incoming, TransferError, Transfers},
};
use async_trait::async_trait;
use hoody_protocol::{
    id::{ContainerId, SnapshotId, TransferId},
    image::{Digest, ImageSpec},
    share::{ShareFailure, ShareMount, ShareProblem},
    snapshot::{HeldSnapshot, Origin},
};
use std::path::{Path, PathBuf};

impl From<Faulted> for StorageError {
    fn from(_: Faulted) -> Self {
        Self::CutOff { action: "fault", path: PathBuf::new() }
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
        let received = self.step("transfer", |world| !world.too_large).await;
        let fits = received.map_err(|fault| TransferError::Storage(fault.into()))?;
        fits.then(|| PathBuf::from("/image")).ok_or(TransferError::Stage(StageError::TooLong { limit: 0 }))
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
