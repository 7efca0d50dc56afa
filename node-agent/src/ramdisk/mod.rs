//! RAM disks of containers: file systems in memory that outlive a container's runs, but not the server's.

mod host;
mod pool;

pub use host::HostRamdisks;

use crate::storage::{IdRange, StorageError};
use async_trait::async_trait;
use hoody_protocol::{
    id::{ContainerId, ProjectId},
    share::RamdiskScope,
    stats::RamdiskStats,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why there is no RAM disk.
#[derive(Debug, thiserror::Error)]
pub enum RamdiskError {
    /// The system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server's pool has not that much left.
    #[error("a RAM disk of {wanted_bytes} bytes does not fit: {free_bytes} bytes of the pool are free")]
    PoolFull {
        /// Of the RAM disk.
        wanted_bytes: u64,
        /// Of the pool.
        free_bytes: u64,
    },
    /// The kernel cannot share one between containers: Linux before 6.3 maps no owners on tmpfs.
    #[error("the kernel cannot share a RAM disk between containers")]
    Unsupported,
    /// It took too long.
    #[error(transparent)]
    Blocked(#[from] StorageError),
}

impl RamdiskError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// What a container asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Whose it is.
    pub scope: RamdiskScope,
    /// The container's project.
    pub project: ProjectId,
    /// Bytes that it takes at most. One that is shared is as large as the largest that was asked for.
    pub bytes: u64,
}

/// RAM disks. Calls are idempotent; what is already so counts as success.
#[async_trait]
pub trait Ramdisks: Send + Sync + std::fmt::Debug {
    /// Makes the container's RAM disk, or finds it again with all that is in it; gives where it is mounted. One of
    /// another scope goes first. For a container that does not run.
    async fn ensure(&self, id: ContainerId, ids: IdRange, wanted: Wanted) -> Result<PathBuf, RamdiskError>;
    /// Takes the container's RAM disk away; one that is shared goes with its last user.
    async fn remove(&self, id: ContainerId) -> Result<(), RamdiskError>;
    /// What is in the container's RAM disk; `None` where it has none.
    async fn usage(&self, id: ContainerId) -> Result<Option<RamdiskStats>, RamdiskError>;
}
