//! Root file systems on a btrfs pool: an image's subvolume is snapshotted for each container and
//! mounted idmapped, so that nothing is ever chowned.

mod authorized_keys;
pub(crate) mod blocking;
mod copy;
mod devices;
mod divergence;
mod error;
mod exports;
mod identity;
pub(crate) mod inside;
pub(crate) mod ioctl;
pub(crate) mod layout;
mod lineages;
pub(crate) mod made;
pub(crate) mod mount;
mod pool;
mod quota;
pub mod receive;
pub(crate) mod send;
mod snapshot;
pub(crate) mod subvolume;
mod transfer_ioctl;
pub(crate) mod user_namespace;

pub(crate) use authorized_keys::fuzzing as authorized_keys_fuzzing;
pub use devices::devices;
pub use error::StorageError;
pub use exports::Exports;
pub use lineages::{Lineages, StageError, Staging};
pub use pool::{BtrfsPool, PoolConfig};
pub(crate) use pool::{root_mount, space};
pub use quota::QuotaMode;
pub use receive::{ReceiveError, Refusal, Room};
pub use send::SendStream;
pub(crate) use snapshot::{charge, is_charged};

use async_trait::async_trait;
use hoody_protocol::{
    id::{ContainerId, SnapshotId},
    snapshot::{HeldSnapshot, Origin},
};
use std::path::{Path, PathBuf};

/// The block of user and group ids that a container's user namespace maps to 0..65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct IdRange {
    /// The host id of the container's root.
    pub first: u32,
}

impl IdRange {
    /// Ids in every range.
    pub const LENGTH: u32 = 65_536;
}

/// Bytes used and allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In use.
    pub used_bytes: u64,
    /// The limit, or the size of the pool.
    pub total_bytes: u64,
}

/// What takes the place of a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// One of the container's own snapshots.
    Snapshot(SnapshotId),
    /// What another container had, read-only at `path`. The identity of the machine stays the container's own.
    Other {
        /// Where it is kept.
        path: PathBuf,
        /// The container of this pool that it was kept from; `None`: it came from another server.
        origin: Option<ContainerId>,
    },
}

/// Root file systems. Every call is idempotent; what is already so counts as success.
#[async_trait]
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Makes the container's root file system as a writable snapshot of the read-only subvolume
    /// `image`, limited to `disk_bytes`. Where it exists, only the limit is set.
    async fn create(&self, id: ContainerId, image: &Path, disk_bytes: u64) -> Result<(), StorageError>;
    /// True where the container's root file system exists whole.
    async fn exists(&self, id: ContainerId) -> Result<bool, StorageError>;
    /// Mounts the root file system idmapped to `ids`, nosuid is NOT set (setuid files work inside the
    /// container's user namespace), nodev is; returns the mount point.
    async fn mount(&self, id: ContainerId, ids: IdRange) -> Result<PathBuf, StorageError>;
    /// Unmounts it; success where it is not mounted.
    async fn unmount(&self, id: ContainerId) -> Result<(), StorageError>;
    /// Makes the container's root file system as a writable snapshot of another's, or of one of that one's
    /// snapshots, or of what was `kept` of it to be copied, limited to `disk_bytes` with what it begins with. Where it
    /// exists, only the limit is set.
    async fn copy(
        &self,
        id: ContainerId,
        origin: Origin,
        kept: Option<&Path>,
        disk_bytes: u64,
    ) -> Result<(), StorageError>;
    /// Makes the container's root file system as a writable snapshot of what came from another server, limited to
    /// `disk_bytes` beyond it. Where it exists, only the limit is set. `same_machine`: it was this container there, and
    /// keeps the identity of its machine.
    async fn receive(
        &self,
        id: ContainerId,
        received: &Path,
        disk_bytes: u64,
        same_machine: bool,
    ) -> Result<(), StorageError>;
    /// Keeps the root file system as it is now, read-only; gives the bytes of the container's own that the snapshot may
    /// keep from being freed. Success where the snapshot exists.
    async fn take_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<u64, StorageError>;
    /// Makes what came from another server, read-only at `received`, a snapshot of the container, which moved here with it.
    /// Its root file system need not be there yet. Success where the snapshot exists.
    async fn receive_snapshot(
        &self,
        id: ContainerId,
        snapshot: SnapshotId,
        received: &Path,
    ) -> Result<(), StorageError>;
    /// Deletes a snapshot; success where there is none.
    async fn delete_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<(), StorageError>;
    /// The container's snapshots, in the order of their ids.
    async fn snapshots(&self, id: ContainerId) -> Result<Vec<HeldSnapshot>, StorageError>;
    /// Puts a writable copy of the replacement in the place of the root file system, which is kept aside. Where one is
    /// kept aside already, this was done. Nothing may be mounted.
    async fn swap_in(&self, id: ContainerId, with: &Replacement) -> Result<(), StorageError>;
    /// Puts the root file system that is kept aside back in its place; success where none is.
    async fn swap_back(&self, id: ContainerId) -> Result<(), StorageError>;
    /// True where a root file system is kept aside.
    async fn is_aside(&self, id: ContainerId) -> Result<bool, StorageError>;
    /// Deletes the root file system that is kept aside; success where none is.
    async fn forget_aside(&self, id: ContainerId) -> Result<(), StorageError>;
    /// Deletes the root file system, its snapshots, and what is kept aside, nested subvolumes first; success where
    /// there is none.
    async fn delete(&self, id: ContainerId) -> Result<(), StorageError>;
    /// Makes `key` the platform's own line of the container's `/root/.ssh/authorized_keys`; `None`: takes it out. All
    /// other lines stay.
    async fn place_ssh_key(&self, id: ContainerId, key: Option<&str>) -> Result<(), StorageError>;
    /// Bytes that the container's root file system uses and may use.
    async fn usage(&self, id: ContainerId) -> Result<Usage, StorageError>;
    /// Bytes of the whole pool.
    async fn pool_usage(&self) -> Result<Usage, StorageError>;
    /// Errors that the kernel has counted on the pool's devices, of every kind, since they were last set back.
    async fn device_errors(&self) -> Result<u64, StorageError> {
        Ok(0)
    }
    /// Every container that has anything in the pool or a mount, for finding leftovers.
    async fn inventory(&self) -> Result<Vec<ContainerId>, StorageError>;
}
