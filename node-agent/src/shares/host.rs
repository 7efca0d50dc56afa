//! [`Shares`] on the kernel.
//!
//! ```text
//! <folder>/                   a tmpfs of its own, a shared mount: the only one whose mounts reach containers
//!     <container>/            0710, its group the container's root: nobody else on the server passes
//!         mounts/             appears in the container as /mnt/shares
//!             <name>/         a share, mounted idmapped to the container's ids
//! ```
//!
//! A share with a place of its own is mounted there, too ([`super::places`]).
//!
//! Removing a mount point that is empty takes whatever is still mounted there in other mount namespaces along (rmdir(2)
//! since Linux 3.18): nothing that a container mounts below a share keeps it.

use super::{Converged, ShareError, Shares, mountinfo, places::Root, source, visible};
use crate::storage::{
    IdRange,
    blocking::{Blocking, Locks, Step},
    layout::CONTAINERS,
    made,
    mount::{self, Attributes},
    root_mount, subvolume, user_namespace,
};
use async_trait::async_trait;
use hoody_protocol::{
    id::ContainerId,
    share::{ShareFailure, ShareMount, ShareProblem},
};
use nix::{
    mount::MsFlags,
    sys::{
        stat::{fstat, lstat},
        statvfs::{FsFlags, statvfs},
    },
};
use std::{
    collections::HashSet,
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// For all shares of one container.
const DEADLINE: Duration = Duration::from_secs(15);
/// Folders only: they take no block.
const OPTIONS: &str = "size=64k,mode=0711";
/// The group may pass: the container's root.
const GATE_MODE: u32 = 0o710;
/// Inside, its owner is nobody: all may look, none may write.
const MOUNTS_MODE: u32 = 0o755;

/// Shares between the containers of a pool.
#[derive(Debug)]
pub struct HostShares {
    shared: Arc<Places>,
    blocking: Blocking,
    locks: Locks<ContainerId>,
}

#[derive(Debug)]
struct Places {
    /// The containers' subvolumes.
    containers: PathBuf,
    /// Where shares are mounted.
    folder: PathBuf,
    /// Where the containers' root file systems are mounted.
    roots: PathBuf,
    /// Containers that were looked at and have nothing at a place of its own.
    without_places: Mutex<HashSet<ContainerId>>,
}

impl HostShares {
    /// Mounts `folder` where it is not mounted; `pool` is the containers' pool, and in `roots` their root file systems
    /// are mounted.
    pub async fn open(pool: &Path, folder: PathBuf, roots: PathBuf) -> Result<Self, ShareError> {
        let containers = pool.join(CONTAINERS);
        let shared = Arc::new(Places { containers, folder, roots, without_places: Mutex::default() });
        let this = Self { shared, blocking: Blocking::default(), locks: Locks::default() };
        this.run("prepare", None, |places| places.prepare()).await?;
        Ok(this)
    }

    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        id: Option<ContainerId>,
        work: impl FnOnce(&Places) -> Result<T, ShareError> + Send + 'static,
    ) -> Result<T, ShareError> {
        let places = self.shared.clone();
        let path = id.map_or_else(|| places.folder.clone(), |id| places.gate(id));
        let lock = async {
            match id {
                Some(id) => Some(self.locks.lock(id).await),
                None => None,
            }
        };
        self.blocking.run(Step::new(action, &path, DEADLINE), lock, move || work(&places)).await
    }
}

#[async_trait]
impl Shares for HostShares {
    async fn converge(&self, id: ContainerId, ids: IdRange, wanted: &[ShareMount]) -> Result<Converged, ShareError> {
        let wanted = wanted.to_vec();
        self.run("mount the shares of", Some(id), move |places| places.converge(id, ids, &wanted)).await
    }

    async fn is_visible(&self, id: ContainerId, pid: i32) -> Result<bool, ShareError> {
        self.run("look at the mounts of", None, move |places| places.is_visible(id, pid)).await
    }

    async fn takes_places(&self, id: ContainerId, pid: i32) -> Result<bool, ShareError> {
        self.run("look at the root of", None, move |places| places.takes_places(id, pid)).await
    }

    async fn clear(&self, id: ContainerId) -> Result<(), ShareError> {
        self.run("unmount the shares of", Some(id), move |places| places.clear(id)).await
    }
}

impl Places {
    fn gate(&self, id: ContainerId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn mounts(&self, id: ContainerId) -> PathBuf {
        self.gate(id).join(visible::MOUNTS)
    }

    fn prepare(&self) -> Result<(), ShareError> {
        let folder = &self.folder;
        let failed = |error: nix::Error| ShareError::io("mount", folder)(error.into());
        make_folder(folder, 0o711)?;
        if !mount::is_mount_point(folder).map_err(ShareError::io("inspect", folder))? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            nix::mount::mount(Some("hoody-shares"), folder, Some("tmpfs"), flags, Some(OPTIONS)).map_err(failed)?;
        }
        let change = |flag| nix::mount::mount(None::<&str>, folder, None::<&str>, flag, None::<&str>).map_err(failed);
        if fs::read_dir(folder).map_err(ShareError::io("list", folder))?.next().is_none() {
            // Peers of the mount around it, which may be shared with others, are none of this one's.
            change(MsFlags::MS_PRIVATE)?;
        }
        change(MsFlags::MS_SHARED)
    }

    fn converge(&self, id: ContainerId, ids: IdRange, wanted: &[ShareMount]) -> Result<Converged, ShareError> {
        // The mount itself can be taken away by others; containers that run see the new one after their next start.
        if !mount::is_mount_point(&self.folder).map_err(ShareError::io("inspect", &self.folder))? {
            self.prepare()?;
        }
        let (gate, folder) = (self.gate(id), self.mounts(id));
        make_folder(&gate, 0o700)?;
        make_folder(&folder, MOUNTS_MODE)?;
        fs::set_permissions(&gate, Permissions::from_mode(GATE_MODE))
            .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(MOUNTS_MODE)))
            .and_then(|()| std::os::unix::fs::chown(&gate, Some(0), Some(ids.first)))
            .map_err(ShareError::io("set owner of", &gate))?;
        for name in names(&folder)? {
            if !wanted.iter().any(|share| name == share.name.as_str()) {
                remove(&folder.join(name))?;
            }
        }
        let mut converged = Converged { folder: folder.clone(), ..Converged::default() };
        let mut standing = Vec::new();
        for share in wanted {
            let target = folder.join(share.name.as_str());
            match self.mount(share, ids, &target) {
                Ok(anew) => {
                    standing.push(share);
                    if anew {
                        converged.mounted.push(share.id);
                    }
                }
                Err(problem) => {
                    remove(&target)?;
                    converged.failures.push(ShareFailure { id: share.id, problem });
                }
            }
        }
        self.place(id, &standing, &mut converged)?;
        Ok(converged)
    }

    /// Brings the places of what is mounted to what they should be.
    fn place(&self, id: ContainerId, standing: &[&ShareMount], converged: &mut Converged) -> Result<(), ShareError> {
        let wanted: Vec<&ShareMount> = standing.iter().copied().filter(|share| share.place.is_some()).collect();
        let without = || self.without_places.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.is_empty() && without().contains(&id) {
            return Ok(());
        }
        without().remove(&id);
        let failure = |share: &ShareMount, problem| ShareFailure { id: share.id, problem };
        let root = match self.files(id)? {
            Some(files) => Root::open(&self.root(id), files)?,
            None => None,
        };
        let Some(root) = root else {
            converged.failures.extend(wanted.into_iter().map(|share| failure(share, ShareProblem::Failed)));
            return Ok(());
        };
        let placed = root.converge(&wanted, &converged.folder)?;
        if placed.is_clean {
            without().insert(id);
        }
        converged.failures.extend(placed.failures.into_iter().map(|(at, problem)| failure(wanted[at], problem)));
        converged.mounted.extend(placed.mounted.into_iter().map(|at| wanted[at].id));
        Ok(())
    }

    /// Removes the folders that were made for places.
    fn tidy(&self, id: ContainerId) -> Result<(), ShareError> {
        if let Some(files) = self.files(id)? {
            made::remove_unused(files.as_fd()).map_err(ShareError::io("tidy", &self.root(id)))?;
        }
        Ok(())
    }

    fn root(&self, id: ContainerId) -> PathBuf {
        root_mount(&self.roots, id)
    }

    /// The container's subvolume.
    fn files(&self, id: ContainerId) -> Result<Option<OwnedFd>, ShareError> {
        let path = self.containers.join(id.to_string());
        subvolume::open(&path).map_err(ShareError::io("open", &path))
    }

    /// True where nothing was mounted there before.
    fn mount(&self, share: &ShareMount, ids: IdRange, target: &Path) -> Result<bool, ShareProblem> {
        let source = source::open(&self.containers, share)?;
        let failed = |error: io::Error| {
            tracing::warn!(share = %share.id, error = &error as &dyn std::error::Error, "a share was not mounted");
            ShareProblem::Failed
        };
        if is_in_force(source.as_fd(), target, ids, share.readonly).map_err(failed)? {
            return Ok(false);
        }
        let anew = !mount::is_mount_point(target).map_err(failed)?;
        remove(target).map_err(|error| failed(io::Error::other(error)))?;
        hoody_fault::point!("share.mounting");
        fs::DirBuilder::new().mode(MOUNTS_MODE).create(target).map_err(failed)?;
        let attributes = Attributes { setuid: false, readonly: share.readonly };
        user_namespace::create(ids)
            .and_then(|namespace| mount::idmapped(source.as_fd(), namespace.as_fd(), target, attributes))
            .map_err(failed)?;
        hoody_fault::point!("share.mounted");
        Ok(anew)
    }

    fn is_visible(&self, id: ContainerId, pid: i32) -> Result<bool, ShareError> {
        receives(&self.folder, pid, |mounts, group| visible::has_folder(mounts, id, group))
    }

    fn takes_places(&self, id: ContainerId, pid: i32) -> Result<bool, ShareError> {
        receives(&self.root(id), pid, visible::has_root)
    }

    fn clear(&self, id: ContainerId) -> Result<(), ShareError> {
        let (gate, folder) = (self.gate(id), self.mounts(id));
        for name in names(&folder)? {
            remove(&folder.join(name))?;
        }
        for folder in [folder, gate] {
            remove(&folder)?;
        }
        // What was mounted in its root file system has gone with that; a disk that fails keeps no container from ending.
        if !self.without_places.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
            && let Err(error) = self.tidy(id)
        {
            tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "folders of shares were left");
        }
        Ok(())
    }
}

/// True where the mounts of the process are such that what is mounted at `point` on the host reaches them: `test` is
/// given those and the peer group of `point`.
fn receives(point: &Path, pid: i32, test: impl FnOnce(&str, &str) -> bool) -> Result<bool, ShareError> {
    // Others' paths may be no text; ours are.
    let own = mountinfo::own().map_err(ShareError::io("read the mounts of", point))?;
    let own = String::from_utf8_lossy(&own);
    let Some(group) = point.to_str().and_then(|point| visible::peer_group(&own, point)) else {
        return Ok(false);
    };
    match mountinfo::of(pid) {
        Ok(mounts) => Ok(test(&String::from_utf8_lossy(&mounts), group)),
        // It is ending; the next pass sees its end.
        Err(_) => Ok(true),
    }
}

/// True where `target` is the folder `source` with its owners as `ids` say, and as writable as it should be.
fn is_in_force(source: BorrowedFd<'_>, target: &Path, ids: IdRange, readonly: bool) -> io::Result<bool> {
    if !mount::is_mount_point(target)? {
        return Ok(false);
    }
    let (below, seen, flags) = (fstat(source)?, lstat(target)?, statvfs(target)?.flags());
    let shifted = |raw: u32, mapped: u32| raw >= IdRange::LENGTH || raw + ids.first == mapped;
    Ok((below.st_dev, below.st_ino) == (seen.st_dev, seen.st_ino)
        && shifted(below.st_uid, seen.st_uid)
        && shifted(below.st_gid, seen.st_gid)
        && flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV)
        && flags.contains(FsFlags::ST_RDONLY) == readonly)
}

/// What is in a folder; nothing where it does not exist.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, ShareError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(ShareError::io("list", folder))?,
    };
    entries.map(|entry| Ok(entry.map_err(ShareError::io("list", folder))?.file_name())).collect()
}

/// Unmounts what is mounted at `path` and removes the folder: from every mount namespace.
fn remove(path: &Path) -> Result<(), ShareError> {
    mount::unmount(path).map_err(ShareError::io("unmount", path))?;
    hoody_fault::point!("share.unmounted");
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ShareError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), ShareError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(ShareError::io("make", path))
}
