//! Transfers of file systems between servers, over the bulk connection and the control plane.
//!
//! [`receive`] drives one: it asks for the stream, carries it out, and asks again where it broke; for a new container, or
//! because it is [`ordered`] for one that exists, here or where it moves from. [`send`] answers an
//! order: it keeps what is to be sent, and offers the stream. A stream that broke goes on where it was as long as both
//! agents live, because the sender keeps what was not taken yet; otherwise it begins anew.
//!
//! [`export`] sends the archive of a container to whoever asked the control plane for it.

mod export;
mod ordered;
mod outgoing;
pub mod receive;
mod send;

use crate::{
    link::bulk::Bulk,
    storage::{
        Exports, Lineages, StorageError,
        layout::{CONTAINERS, SNAPSHOTS},
    },
};
use async_trait::async_trait;
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, SnapshotId, TransferId},
    snapshot::Origin,
    stream::StreamError,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use receive::{Incoming, TransferError};

/// Streams that are received at once; those beyond wait, but for those that containers stand still for.
const MAX_INCOMING: usize = 2;
/// How long a stream that broke is waited for to go on, on either side.
const RESUME_TIME: Duration = Duration::from_secs(60);
/// The time for a stream of the bulk connection and the answer on it, the source's snapshot included.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);

/// What containers need of transfers.
#[async_trait]
pub trait Transfers: Send + Sync + std::fmt::Debug {
    /// Receives a transfer; gives the read-only subvolume. Done already, it is given at once. Dropped, it is given up.
    async fn receive(&self, incoming: &Incoming) -> Result<PathBuf, TransferError>;
    /// Where the read-only subvolume of a transfer is; `None`: it is not here, complete.
    async fn held(&self, container: ContainerId, transfer: TransferId) -> Result<Option<PathBuf>, StorageError>;
    /// Keeps what the container's copy of another is to be made from, as if it had come as this transfer; gives the
    /// read-only subvolume. Done already, it is given as it was kept then.
    async fn keep(&self, container: ContainerId, transfer: TransferId, origin: Origin)
    -> Result<PathBuf, StorageError>;
    /// Removes everything that the container has of transfers: it is being deleted.
    async fn forget(&self, container: ContainerId) -> Result<(), StorageError>;
}

/// Transfers over the bulk connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BulkTransfers {
    lineages: Lineages,
    bulk: Bulk,
    pool: PathBuf,
    incoming: Arc<Places>,
    ordered: Arc<ordered::Ordered>,
    outgoing: Arc<outgoing::Outgoing>,
    exports: Exports,
    exporting: Arc<export::Running>,
}

/// Places for what is received.
#[derive(Debug)]
struct Places(Semaphore);

impl Places {
    fn new() -> Self {
        Self(Semaphore::new(MAX_INCOMING))
    }

    /// Waits for a place. What a container stands still for (`held`) waits for no other and takes none: there are never more
    /// of it than may be ordered.
    async fn take(&self, held: bool) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        if held { None } else { self.0.acquire().await.ok() }
    }
}

/// Why one attempt to move a stream ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Bulk(#[from] crate::link::bulk::Unreachable),
    #[error("open a stream")]
    Open(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    #[error("nothing came in time")]
    Silent,
    #[error("the control plane asks for patience: {}", .0.message)]
    Later(Cause),
}

impl BulkTransfers {
    /// Transfers of the pool at `pool`.
    pub fn new(lineages: Lineages, exports: Exports, bulk: Bulk, pool: &Path) -> Self {
        let incoming = Arc::new(Places::new());
        let outgoing = Arc::<outgoing::Outgoing>::default();
        tokio::spawn(outgoing.clone().sweep());
        let (ordered, exporting) = (Arc::default(), Arc::default());
        Self { lineages, bulk, pool: pool.to_owned(), incoming, ordered, outgoing, exports, exporting }
    }

    /// Where the root file system of a container, or one of its snapshots, is.
    fn source(&self, container: ContainerId, snapshot: Option<SnapshotId>) -> PathBuf {
        match snapshot {
            None => self.pool.join(CONTAINERS).join(container.to_string()),
            Some(snapshot) => self.pool.join(SNAPSHOTS).join(container.to_string()).join(snapshot.to_string()),
        }
    }
}

#[async_trait]
impl Transfers for BulkTransfers {
    async fn receive(&self, incoming: &Incoming) -> Result<PathBuf, TransferError> {
        self.pull(incoming).await
    }

    async fn held(&self, container: ContainerId, transfer: TransferId) -> Result<Option<PathBuf>, StorageError> {
        let held = self.lineages.has(container, transfer).await?;
        Ok(held.then(|| self.lineages.path(container, transfer)))
    }

    async fn keep(
        &self,
        container: ContainerId,
        transfer: TransferId,
        origin: Origin,
    ) -> Result<PathBuf, StorageError> {
        self.lineages.keep(container, transfer, &self.source(origin.container, origin.snapshot)).await?;
        Ok(self.lineages.path(container, transfer))
    }

    async fn forget(&self, container: ContainerId) -> Result<(), StorageError> {
        self.ordered.end_all_of(container, &[]);
        self.outgoing.end_all_of(container, &[]);
        self.exporting.end_all_of(container);
        self.lineages.retain(container, Vec::new()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_a_container_stands_still_for_waits_for_no_other() {
        let places = Places::new();
        let taken: Vec<_> = (0..MAX_INCOMING).map(|_| places.take(false).now_or_never().unwrap()).collect();
        assert!(places.take(false).now_or_never().is_none(), "more than there are");
        assert!(places.take(true).now_or_never().is_some(), "it waits");
        drop(taken);
        assert!(places.take(false).now_or_never().is_some());
    }
}
