//! Folders of containers that appear in other containers of the same server, live.
//!
//! Nothing is ever mounted by going into a container. Each container has a folder of its own on the host, of which it
//! has a slave bind at `/mnt/shares`: what is mounted on the host's side appears inside, with its attributes locked,
//! because the container's user namespace is another than the one that mounted it.

mod host;
mod mountinfo;
mod places;
mod source;
mod visible;

pub use host::HostShares;

use crate::storage::{IdRange, StorageError};
use async_trait::async_trait;
use hoody_protocol::{
    id::{ContainerId, ShareId},
    share::{ShareFailure, ShareMount},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why shares could not be brought to what they should be. One share that cannot be mounted is no such error.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
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
    /// It took too long.
    #[error(transparent)]
    Blocked(#[from] StorageError),
}

impl ShareError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// How the shares of a container are after [`Shares::converge`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Converged {
    /// The folder that appears at `/mnt/shares`.
    pub folder: PathBuf,
    /// What is not mounted.
    pub failures: Vec<ShareFailure>,
    /// What was not mounted before and is now.
    pub mounted: Vec<ShareId>,
}

/// Mounts of shares. Calls are idempotent; what is already so counts as success.
#[async_trait]
pub trait Shares: Send + Sync + std::fmt::Debug {
    /// Makes the container's folder hold exactly `wanted`: what is not in it goes first. Each is resolved anew in its
    /// source; one that leads elsewhere than before is mounted again. Places of their own are in the container's root
    /// file system, which has to be mounted.
    async fn converge(&self, id: ContainerId, ids: IdRange, wanted: &[ShareMount]) -> Result<Converged, ShareError>;
    /// True where the first process of the container sees what is mounted in its folder.
    async fn is_visible(&self, id: ContainerId, pid: i32) -> Result<bool, ShareError>;
    /// True where the first process of the container sees what is mounted at places of its own.
    async fn takes_places(&self, id: ContainerId, pid: i32) -> Result<bool, ShareError>;
    /// Unmounts everything of the container's and removes its folder.
    async fn clear(&self, id: ContainerId) -> Result<(), ShareError>;
}
