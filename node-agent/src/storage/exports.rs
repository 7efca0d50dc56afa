//! What is being exported: `<pool>/exports/<export>` is a read-only snapshot of a container's root file system, for as
//! long as its archive is made. None outlives the agent: what is there when it starts goes.

use super::{
    StorageError,
    blocking::{Blocking, Locks, Step},
    ioctl,
    layout::{CONTAINERS, CREATE_DEADLINE, DELETE_DEADLINE, EXPORTS},
    subvolume,
};
use hoody_protocol::id::{ContainerId, ExportId};
use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The exports of a pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exports {
    pool: Arc<OwnedFd>,
    folder: PathBuf,
    containers: PathBuf,
    blocking: Blocking,
    /// One step on an export at a time: one that nobody waits for any more still comes to its end, and is forgotten after it.
    locks: Arc<Locks<ExportId>>,
}

impl Exports {
    /// Opens them on `pool` and removes what an agent before this one left.
    pub async fn open(pool: &Path) -> Result<Self, StorageError> {
        let (blocking, folder, containers) = (Blocking::default(), pool.join(EXPORTS), pool.join(CONTAINERS));
        let step = Step::new("open", &folder, DELETE_DEADLINE);
        let (pool, opening) = (pool.to_owned(), folder.clone());
        let pool = blocking.run(step, async { None }, move || open(&pool, &opening)).await?;
        Ok(Self { pool: Arc::new(pool), folder, containers, blocking, locks: Arc::default() })
    }

    /// Keeps the container's root file system as it is now; gives where that is.
    pub async fn keep(&self, export: ExportId, container: ContainerId) -> Result<PathBuf, StorageError> {
        let (folder, path) = (self.folder.clone(), self.folder.join(export.to_string()));
        let source = self.containers.join(container.to_string());
        let step = Step::new("keep", &path, CREATE_DEADLINE);
        let work = move || {
            let folder = subvolume::open_folder(&folder).map_err(StorageError::io("open", &folder))?;
            let root = subvolume::open(&source).map_err(StorageError::io("open", &source))?;
            let root = root.ok_or(StorageError::Missing { id: container })?;
            ioctl::read_only_snapshot(root.as_fd(), folder.as_fd(), &export.to_string())
                .map_err(StorageError::io("keep", &source))?;
            Ok(path)
        };
        self.blocking.run(step, async { Some(self.locks.lock(export).await) }, work).await
    }

    /// Deletes what was kept; success where there is nothing.
    pub async fn forget(&self, export: ExportId) -> Result<(), StorageError> {
        let (pool, path) = (self.pool.clone(), self.folder.join(export.to_string()));
        let step = Step::new("delete", &path, DELETE_DEADLINE);
        let work = move || subvolume::delete(pool.as_fd(), &path).map_err(StorageError::io("delete", &path));
        self.blocking.run(step, async { Some(self.locks.lock(export).await) }, work).await
    }
}

fn open(pool: &Path, folder: &Path) -> Result<OwnedFd, StorageError> {
    let handle = subvolume::open_folder(pool).map_err(StorageError::io("open", pool))?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(StorageError::io("make folder", folder))?;
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(StorageError::io("list", folder))? {
        let path = entry.path();
        tracing::info!(path = %path.display(), "removing what an export left");
        subvolume::delete(handle.as_fd(), &path).map_err(StorageError::io("delete", &path))?;
    }
    Ok(handle)
}
