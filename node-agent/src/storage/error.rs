//! What can go wrong here.

use hoody_protocol::id::{ContainerId, SnapshotId, TransferId};
use std::{io, path::Path, path::PathBuf};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file or folder operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, for example "open".
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The step did not end in time. The kernel may still be at it: later steps for the same container
    /// wait for it.
    #[error("{action} {} did not end within {seconds} s", path.display())]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The limit.
        seconds: u64,
    },
    /// The thread that did the step is gone: it panicked, or the agent is shutting down.
    #[error("{action} {} was cut off", path.display())]
    CutOff {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
    },
    /// The pool folder is not on a btrfs file system.
    #[error("pool {} is not on btrfs", path.display())]
    NotBtrfs {
        /// The pool folder.
        path: PathBuf,
    },
    /// The image is not a read-only subvolume.
    #[error("image {} is not a read-only subvolume", path.display())]
    NotAnImage {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The container has no root file system in this pool.
    #[error("container {id} has no root file system")]
    Missing {
        /// The container.
        id: ContainerId,
    },
    /// The container has no such snapshot in this pool.
    #[error("container {id} has no snapshot {snapshot}")]
    NoSnapshot {
        /// The container.
        id: ContainerId,
        /// What was asked for.
        snapshot: SnapshotId,
    },
    /// Of this transfer nothing is kept for the container.
    #[error("container {id} has nothing of transfer {transfer}")]
    NoTransfer {
        /// The container.
        id: ContainerId,
        /// The transfer.
        transfer: TransferId,
    },
    /// The container has as many snapshots as a pool keeps.
    #[error("container {id} has {most} snapshots")]
    TooManySnapshots {
        /// The container.
        id: ContainerId,
        /// As many as there may be.
        most: usize,
    },
    /// A copy's disk limit is less than what it begins with.
    #[error("container {id} may take {limit} bytes, and would begin with {needed}")]
    CopyTooLarge {
        /// The copy.
        id: ContainerId,
        /// Its limit.
        limit: u64,
        /// What its origin holds of its own.
        needed: u64,
    },
    /// The id range touches the host's own ids or passes the last id.
    #[error("id range from {first} is not usable")]
    InvalidIds {
        /// First host id of the range.
        first: u32,
    },
}

impl StorageError {
    /// Wraps what the system said; for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
