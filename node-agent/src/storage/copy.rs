//! Root file systems that begin as what another container had: one of the same pool, or one that came from another server.
//! The new one has an identity of its own, unless it is the same container that moved.

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

/// Bytes that a root file system may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum Room {
    /// Refused where what it begins with leaves no room to write.
    Within(u64),
    /// Of a container that moved: it is nowhere else, and arrives however full it is.
    AsItWas(u64),
}

impl Shared {
    pub(super) fn copy(
        &self,
        id: ContainerId,
        origin: Origin,
        kept: Option<&Path>,
        disk_bytes: u64,
    ) -> Result<(), StorageError> {
        if self.keep_limit(id, disk_bytes)? {
            return Ok(());
        }
        let from = origin.container;
        let source = match (kept, origin.snapshot) {
            (Some(kept), _) => open_kept(kept)?,
            (None, Some(snapshot)) => {
                self.find_snapshot(from, snapshot)?.ok_or(StorageError::NoSnapshot { id: from, snapshot })?
            }
            (None, None) => self.find(from)?.ok_or(StorageError::Missing { id: from })?,
        };
        let room = Room::Within(disk_bytes);
        let root = self.stage_copy(id, source.as_fd(), Some(from), room)?;
        self.forget_identity(id, root.as_fd())?;
        self.name_staged(id)
    }

    pub(super) fn forget_identity(&self, id: ContainerId, root: BorrowedFd<'_>) -> Result<(), StorageError> {
        identity::forget(root).map_err(StorageError::io("make a new identity in", &self.staged(id)))
    }

    pub(super) fn receive(
        &self,
        id: ContainerId,
        received: &Path,
        disk_bytes: u64,
        same_machine: bool,
    ) -> Result<(), StorageError> {
        if self.keep_limit(id, disk_bytes)? {
            return Ok(());
        }
        let source = open_kept(received)?;
        let room = if same_machine { Room::AsItWas(disk_bytes) } else { Room::Within(disk_bytes) };
        let root = self.stage_copy(id, source.as_fd(), None, room)?;
        if !same_machine {
            self.forget_identity(id, root.as_fd())?;
        }
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

    /// Makes what will be a root file system, under the name of what is staged. It may take what `room` says; where it was
    /// another container's, less what that one was charged for it.
    pub(super) fn stage_copy(
        &self,
        id: ContainerId,
        source: BorrowedFd<'_>,
        origin: Option<ContainerId>,
        room: Room,
    ) -> Result<OwnedFd, StorageError> {
        let (Room::Within(disk_bytes) | Room::AsItWas(disk_bytes)) = room;
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
            let full = needed.saturating_add(Limits::MIN_DISK_BYTES) > disk_bytes;
            if full && matches!(room, Room::Within(_)) {
                drop(root);
                delete()?;
                return Err(StorageError::CopyTooLarge { id, limit: disk_bytes, needed });
            }
            snapshot::set_inherited(root.as_fd(), needed)
                .and_then(|()| self.limit(id, root.as_fd(), disk_bytes))
                .map_err(StorageError::io("limit", &staged))?;
        }
        Ok(root)
    }
}

pub(super) fn open_kept(path: &Path) -> Result<OwnedFd, StorageError> {
    subvolume::open(path)
        .and_then(|top| top.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(StorageError::io("open", path))
}
