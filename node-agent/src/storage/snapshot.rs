//! Snapshots of root file systems, and the swap that puts one, or what another container had, in place.
//!
//! `<pool>/snapshots/<container>/<snapshot>` is a read-only subvolume. A swap makes a writable snapshot of it under
//! a name that begins with [`STAGED`], sets the root file system aside under one that begins with [`ASIDE`], and gives
//! the new one its place: two renames, each in one transaction. Between them the root file system is missing;
//! [`Shared::settle_swap`] then brings back what is aside, whenever the pool is opened.
//!
//! Everything stays charged to its container ([`super::quota`]). A copy begins with what others were charged: how
//! much that is stands in an attribute of its root file system, which only the node's root can read or write,
//! and is taken off its limit. So however containers are copied and their origins deleted, what a container holds stays
//! below its limit.

use super::{
    QuotaMode, Replacement, StorageError,
    copy::{Room, open_kept},
    identity, ioctl,
    pool::{Shared, make_folder},
    quota, subvolume,
};
use hoody_protocol::{
    id::{ContainerId, SnapshotId},
    operation::MAX_SNAPSHOTS,
    snapshot::HeldSnapshot,
};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};
use xattr::FileExt;

/// Begins the name of what will be a root file system; no id begins so.
pub(super) const STAGED: &str = ".staged-";
/// Begins the name of the root file system before a restore that has not come to its end.
pub(super) const ASIDE: &str = ".aside-";
/// Bytes that a copy began with, decimal.
const INHERITED: &str = "trusted.hoody.inherited_bytes";

/// Bytes that the root file system of `root` began with and others were charged.
pub(super) fn inherited(root: BorrowedFd<'_>) -> io::Result<u64> {
    let value = File::from(root.try_clone_to_owned()?).get_xattr(INHERITED)?;
    let text = value.as_deref().map(String::from_utf8_lossy);
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Makes what was written into the subvolume of `top` count as used in every container that is made from it, with what
/// counted so already where it was a snapshot, and takes away what tells one machine from another: it is the archive of a
/// container. What was written must be on disk.
pub(crate) fn charge(pool: BorrowedFd<'_>, top: BorrowedFd<'_>) -> io::Result<()> {
    identity::forget(top)?;
    let used = match quota::usage(pool, ioctl::subvolume_id(top)?) {
        // Nothing is counted in this pool.
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        usage => usage?.0,
    };
    let used = used.saturating_add(inherited(top)?);
    File::from(top.try_clone_to_owned()?).set_xattr(INHERITED, used.to_string().as_bytes())
}

/// True where [`charge`] was called for what is at `path`, or something it was made from.
pub(crate) fn is_charged(path: &Path) -> io::Result<bool> {
    Ok(xattr::get(path, INHERITED)?.is_some())
}

/// Writes down what the root file system of `root` begins with; where nothing is written, that is nothing.
pub(super) fn set_inherited(root: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    if inherited(root)? == bytes {
        return Ok(());
    }
    File::from(root.try_clone_to_owned()?).set_xattr(INHERITED, bytes.to_string().as_bytes())
}

impl Shared {
    fn folder_of(&self, id: ContainerId) -> PathBuf {
        self.snapshots.join(id.to_string())
    }

    fn snapshot_path(&self, id: ContainerId, snapshot: SnapshotId) -> PathBuf {
        self.folder_of(id).join(snapshot.to_string())
    }

    pub(super) fn staged(&self, id: ContainerId) -> PathBuf {
        self.containers.join(format!("{STAGED}{id}"))
    }

    fn aside(&self, id: ContainerId) -> PathBuf {
        self.containers.join(format!("{ASIDE}{id}"))
    }

    pub(super) fn find_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<Option<OwnedFd>, StorageError> {
        let path = self.snapshot_path(id, snapshot);
        subvolume::open(&path).map_err(StorageError::io("open", &path))
    }

    pub(super) fn take_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<u64, StorageError> {
        if self.find_snapshot(id, snapshot)?.is_none() {
            let root = self.find(id)?.ok_or(StorageError::Missing { id })?;
            self.keep_snapshot(id, snapshot, root.as_fd())?;
            hoody_fault::point!("snapshot.taken");
        }
        match self.mode {
            // The counts are those of the transaction that the snapshot was made in.
            QuotaMode::Simple => Ok(self.usage(id)?.used_bytes),
            QuotaMode::Full => Ok(self.exclusive(id, snapshot)?.unwrap_or(0)),
        }
    }

    pub(super) fn receive_snapshot(
        &self,
        id: ContainerId,
        snapshot: SnapshotId,
        received: &Path,
    ) -> Result<(), StorageError> {
        if self.find_snapshot(id, snapshot)?.is_some() {
            return Ok(());
        }
        let received = open_kept(received)?;
        self.keep_snapshot(id, snapshot, received.as_fd())?;
        hoody_fault::point!("snapshot.received");
        Ok(())
    }

    /// Keeps `source` as it is under the snapshot's name, whole or not at all.
    fn keep_snapshot(&self, id: ContainerId, snapshot: SnapshotId, source: BorrowedFd<'_>) -> Result<(), StorageError> {
        if self.ids_of(id)?.len() >= MAX_SNAPSHOTS {
            return Err(StorageError::TooManySnapshots { id, most: MAX_SNAPSHOTS });
        }
        let folder = self.folder_of(id);
        make_folder(&folder, 0o700)?;
        hoody_fault::point!("snapshot.folder");
        subvolume::open_folder(&folder)
            .and_then(|folder| ioctl::read_only_snapshot(source, folder.as_fd(), &snapshot.to_string()))
            .map_err(StorageError::io("snapshot to", &self.snapshot_path(id, snapshot)))
    }

    pub(super) fn delete_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<(), StorageError> {
        let path = self.snapshot_path(id, snapshot);
        subvolume::delete(self.handle.as_fd(), &path).map_err(StorageError::io("delete", &path))?;
        hoody_fault::point!("snapshot.gone");
        self.remove_folder(id)
    }

    pub(super) fn held_snapshots(&self, id: ContainerId) -> Result<Vec<HeldSnapshot>, StorageError> {
        let held = |snapshot| Ok(HeldSnapshot { id: snapshot, exclusive_bytes: self.exclusive(id, snapshot)? });
        self.ids_of(id)?.into_iter().map(held).collect()
    }

    /// Bytes that only this snapshot keeps; simple accounting does not tell.
    fn exclusive(&self, id: ContainerId, snapshot: SnapshotId) -> Result<Option<u64>, StorageError> {
        if self.mode == QuotaMode::Simple {
            return Ok(None);
        }
        let Some(top) = self.find_snapshot(id, snapshot)? else { return Ok(None) };
        let usage = ioctl::subvolume_id(top.as_fd()).and_then(|group| quota::usage(self.handle.as_fd(), group));
        Ok(Some(usage.map_err(StorageError::io("measure", &self.snapshot_path(id, snapshot)))?.0))
    }

    fn ids_of(&self, id: ContainerId) -> Result<Vec<SnapshotId>, StorageError> {
        let folder = self.folder_of(id);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.and_then(Iterator::collect::<io::Result<Vec<_>>>),
        };
        let entries = entries.map_err(StorageError::io("list", &folder))?;
        let mut ids: Vec<SnapshotId> =
            entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    pub(super) fn swap_in(&self, id: ContainerId, with: &Replacement) -> Result<(), StorageError> {
        self.settle_swap(id)?;
        let (path, staged, aside) = (self.root(id), self.staged(id), self.aside(id));
        if subvolume::open(&aside).map_err(StorageError::io("open", &aside))?.is_some() {
            return Ok(());
        }
        let source = match with {
            Replacement::Snapshot(snapshot) => {
                let missing = StorageError::NoSnapshot { id, snapshot: *snapshot };
                self.find_snapshot(id, *snapshot)?.ok_or(missing)?
            }
            Replacement::Other { path, .. } => open_kept(path)?,
        };
        // As it is in force: what the specification says is put in force before the next start.
        let limit = self.usage(id)?.total_bytes;
        let root = self.find(id)?.ok_or(StorageError::Missing { id })?;
        self.limit(id, root.as_fd(), limit).map_err(StorageError::io("limit", &path))?;
        match with {
            Replacement::Snapshot(_) => {
                subvolume::delete(self.handle.as_fd(), &staged).map_err(StorageError::io("delete", &staged))?;
                let made = self.writable(id, source.as_fd(), &format!("{STAGED}{id}"), limit)?;
                self.carry_inherited(id, root.as_fd(), made.as_fd(), limit)?;
            }
            Replacement::Other { origin, .. } => {
                let made = self.stage_copy(id, source.as_fd(), *origin, Room::Within(limit))?;
                self.forget_identity(id, made.as_fd())?;
                identity::carry(root.as_fd(), made.as_fd())
                    .map_err(StorageError::io("write the identity in", &staged))?;
            }
        }
        drop(root);
        hoody_fault::point!("swap.staged");
        fs::rename(&path, &aside).map_err(StorageError::io("set aside", &path))?;
        hoody_fault::point!("swap.aside");
        if let Err(error) = fs::rename(&staged, &path) {
            self.settle_swap(id)?;
            return Err(StorageError::io("rename", &staged)(error));
        }
        hoody_fault::point!("swap.done");
        Ok(())
    }

    /// Where the root file system before began with more than its snapshot did, that goes on counting. So it is in a
    /// container that moved: what its snapshots brought, each says for itself as of when it was sent, and others of them
    /// may hold the rest.
    fn carry_inherited(
        &self,
        id: ContainerId,
        before: BorrowedFd<'_>,
        made: BorrowedFd<'_>,
        limit: u64,
    ) -> Result<(), StorageError> {
        let carry = || {
            let begun_with = inherited(before)?;
            if self.mode == QuotaMode::Full || begun_with <= inherited(made)? {
                return Ok(());
            }
            set_inherited(made, begun_with)?;
            self.limit(id, made, limit)
        };
        carry().map_err(StorageError::io("limit", &self.staged(id)))
    }

    /// Where a swap was cut off between its renames: brings back what is aside.
    pub(super) fn settle_swap(&self, id: ContainerId) -> Result<(), StorageError> {
        let (path, aside) = (self.root(id), self.aside(id));
        let is_there =
            |path: &PathBuf| subvolume::open(path).map(|found| found.is_some()).map_err(StorageError::io("open", path));
        if is_there(&aside)? && !is_there(&path)? {
            fs::rename(&aside, &path).map_err(StorageError::io("bring back", &aside))?;
        }
        Ok(())
    }

    pub(super) fn swap_back(&self, id: ContainerId) -> Result<(), StorageError> {
        let (path, staged, aside) = (self.root(id), self.staged(id), self.aside(id));
        if subvolume::open(&aside).map_err(StorageError::io("open", &aside))?.is_none() {
            return Ok(());
        }
        let delete =
            |path: &PathBuf| subvolume::delete(self.handle.as_fd(), path).map_err(StorageError::io("delete", path));
        delete(&staged)?;
        fs::rename(&path, &staged).map_err(StorageError::io("rename", &path))?;
        self.settle_swap(id)?;
        delete(&staged)
    }

    pub(super) fn is_aside(&self, id: ContainerId) -> Result<bool, StorageError> {
        let aside = self.aside(id);
        subvolume::open(&aside).map(|found| found.is_some()).map_err(StorageError::io("open", &aside))
    }

    pub(super) fn forget_aside(&self, id: ContainerId) -> Result<(), StorageError> {
        let aside = self.aside(id);
        subvolume::delete(self.handle.as_fd(), &aside).map_err(StorageError::io("delete", &aside))?;
        hoody_fault::point!("swap.forgotten");
        Ok(())
    }

    /// Everything of the container beside its root file system.
    pub(super) fn delete_beside(&self, id: ContainerId) -> Result<(), StorageError> {
        let kept = self.ids_of(id)?.into_iter().map(|snapshot| self.snapshot_path(id, snapshot));
        for path in kept.chain([self.aside(id), self.staged(id)]) {
            subvolume::delete(self.handle.as_fd(), &path).map_err(StorageError::io("delete", &path))?;
        }
        self.remove_folder(id)
    }

    /// Removes the folder of the container's snapshots where it is empty.
    fn remove_folder(&self, id: ContainerId) -> Result<(), StorageError> {
        let folder = self.folder_of(id);
        match fs::remove_dir(&folder) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                Err(StorageError::io("remove folder", &folder)(error))
            }
            _ => Ok(()),
        }
    }
}
