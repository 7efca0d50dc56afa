//! Root file systems that begin as what another container had: one of the same pool, or one that came from another server.
//! The new one has an identity of its own.

use super::{
    QuotaMode, StorageError, identity,
    pool::Shared,
    snapshot::{self, STAGED},
    subvolume,
};
use hoody_protocol::{container::Limits, id::ContainerId, snapshot::Origin};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

impl Shared {
    pub(super) fn copy(&self, id: ContainerId, origin: Origin, disk_bytes: u64) -> Result<(), StorageError> {
        if self.keep_limit(id, disk_bytes)? {
            return Ok(());
        }
        let from = origin.container;
        let source = match origin.snapshot {
            Some(snapshot) => {
                self.find_snapshot(from, snapshot)?.ok_or(StorageError::NoSnapshot { id: from, snapshot })?
            }
            None => self.find(from)?.ok_or(StorageError::Missing { id: from })?,
        };
        self.stage_copy(id, source.as_fd(), Some(from), disk_bytes)?;
        self.name_staged(id)
    }

    pub(super) fn receive(&self, id: ContainerId, received: &Path, disk_bytes: u64) -> Result<(), StorageError> {
        if self.keep_limit(id, disk_bytes)? {
            return Ok(());
        }
        let source = subvolume::open(received)
            .and_then(|top| top.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(StorageError::io("open", received))?;
        self.stage_copy(id, source.as_fd(), None, disk_bytes)?;
        self.name_staged(id)
    }

    /// Limits the root file system where there is one; false where there is none.
    fn keep_limit(&self, id: ContainerId, disk_bytes: u64) -> Result<bool, StorageError> {
        let Some(root) = self.find(id)? else { return Ok(false) };
        self.limit(id, root.as_fd(), disk_bytes).map_err(StorageError::io("limit", &self.root(id)))?;
        Ok(true)
    }

    fn name_staged(&self, id: ContainerId) -> Result<(), StorageError> {
        let staged = self.staged(id);
        fs::rename(&staged, self.root(id)).map_err(StorageError::io("rename", &staged))
    }

    /// Makes what will be a root file system, under the name of what is staged. It may take `disk_bytes`; where it was
    /// another container's, less what that one was charged for it.
    pub(super) fn stage_copy(
        &self,
        id: ContainerId,
        source: BorrowedFd<'_>,
        origin: Option<ContainerId>,
        disk_bytes: u64,
    ) -> Result<OwnedFd, StorageError> {
        let staged = self.staged(id);
        let delete = || subvolume::delete(self.handle.as_fd(), &staged).map_err(StorageError::io("delete", &staged));
        delete()?;
        let root = self.writable(id, source, &format!("{STAGED}{id}"), disk_bytes)?;
        hoody_fault::point!("copy.staged");
        if self.mode == QuotaMode::Simple {
            // As of the transaction that the copy was made in.
            let needed = match origin {
                Some(from) => self.usage(from)?.used_bytes,
                // As its server said.
                None => snapshot::inherited(source).map_err(StorageError::io("inspect", &staged))?,
            };
            if needed.saturating_add(Limits::MIN_DISK_BYTES) > disk_bytes {
                drop(root);
                delete()?;
                return Err(StorageError::CopyTooLarge { id, limit: disk_bytes, needed });
            }
            snapshot::set_inherited(root.as_fd(), needed)
                .and_then(|()| self.limit(id, root.as_fd(), disk_bytes))
                .map_err(StorageError::io("limit", &staged))?;
        }
        identity::forget(root.as_fd()).map_err(StorageError::io("make a new identity in", &staged))?;
        Ok(root)
    }
}
