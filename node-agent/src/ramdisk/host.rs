//! [`Ramdisks`] on the kernel's tmpfs.
//!
//! ```text
//! <folder>/                     a private mount: nothing below reaches another mount namespace by itself
//!     <container>/              0710, its group the container's root
//!         project               where it is shared: the project's id
//!         disk/                 appears in the container as /ramdisk
//!     project-<project>/disk/   a shared one; its users have it mounted idmapped to their own ids
//! ```
//!
//! Whoever writes a page is charged for it: memory of a RAM disk counts as memory of the container that wrote it, until
//! that run of the container ends. What stays is then memory of the agent's group, bounded by the pool.

use super::{RamdiskError, Ramdisks, Wanted, pool};
use crate::storage::{
    IdRange,
    blocking::{Blocking, Locks, Step},
    mount::{self, Attributes},
    subvolume, user_namespace,
};
use async_trait::async_trait;
use hoody_protocol::{
    id::{ContainerId, ProjectId},
    share::RamdiskScope,
    stats::RamdiskStats,
};
use nix::{errno::Errno, mount::MsFlags, sys::statvfs::statvfs};
use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(15);
/// The group may pass: the container's root.
const GATE_MODE: u32 = 0o710;
const DISK: &str = "disk";
const MARK: &str = "project";
const PAGE: u64 = 4096;
/// The least that is of use.
const MIN_BYTES: u64 = 1 << 20;
/// Files are not setuid for the other containers of the project.
const ATTRIBUTES: Attributes = Attributes { setuid: false, readonly: false };

/// RAM disks of this server's containers.
#[derive(Debug)]
pub struct HostRamdisks {
    places: Arc<Places>,
    blocking: Blocking,
    /// One change at a time: the pool is shared by all.
    lock: Locks<()>,
}

#[derive(Debug)]
struct Places {
    folder: PathBuf,
    pool_bytes: u64,
}

impl HostRamdisks {
    /// RAM disks below `folder`, together at most `pool_bytes` large.
    pub async fn open(folder: PathBuf, pool_bytes: u64) -> Result<Self, RamdiskError> {
        let places = Arc::new(Places { folder, pool_bytes });
        let this = Self { places, blocking: Blocking::default(), lock: Locks::default() };
        this.run("prepare", |places| {
            make_folder(&places.folder, 0o711)?;
            mount::make_private(&places.folder).map_err(RamdiskError::io("mount", &places.folder))
        })
        .await?;
        Ok(this)
    }

    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Places) -> Result<T, RamdiskError> + Send + 'static,
    ) -> Result<T, RamdiskError> {
        let places = self.places.clone();
        let step = Step::new(action, &places.folder, DEADLINE);
        self.blocking.run(step, async { Some(self.lock.lock(()).await) }, move || work(&places)).await
    }
}

#[async_trait]
impl Ramdisks for HostRamdisks {
    async fn ensure(&self, id: ContainerId, ids: IdRange, wanted: Wanted) -> Result<PathBuf, RamdiskError> {
        self.run("make a RAM disk in", move |places| places.ensure(id, ids, wanted)).await
    }

    async fn remove(&self, id: ContainerId) -> Result<(), RamdiskError> {
        self.run("remove a RAM disk from", move |places| places.remove(id)).await
    }

    async fn usage(&self, id: ContainerId) -> Result<Option<RamdiskStats>, RamdiskError> {
        let disk = self.places.gate(id).join(DISK);
        // Most containers have none. A file system in memory answers at once.
        if !disk.exists() || !mount::is_mount_point(&disk).map_err(RamdiskError::io("inspect", &disk))? {
            return Ok(None);
        }
        usage(&disk).map(Some)
    }
}

impl Places {
    fn gate(&self, id: ContainerId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn of_project(&self, project: ProjectId) -> PathBuf {
        self.folder.join(format!("project-{project}"))
    }

    fn ensure(&self, id: ContainerId, ids: IdRange, wanted: Wanted) -> Result<PathBuf, RamdiskError> {
        let (gate, shared) = (self.gate(id), wanted.scope == RamdiskScope::Project);
        let project = shared.then_some(wanted.project);
        if gate.exists() && self.mark(&gate)? != project {
            self.remove(id)?;
        }
        make_folder(&gate, 0o700)?;
        if let Some(project) = project {
            // Before the disk: whoever removes the container finds what it uses.
            let mark = gate.join(MARK);
            fs::write(&mark, project.to_string()).map_err(RamdiskError::io("write", &mark))?;
        }
        let disk = gate.join(DISK);
        make_folder(&disk, 0o700)?;
        fs::set_permissions(&gate, Permissions::from_mode(GATE_MODE))
            .and_then(|()| std::os::unix::fs::chown(&gate, Some(0), Some(ids.first)))
            .map_err(RamdiskError::io("set owner of", &gate))?;
        let made = match project {
            None => self.disk(&disk, wanted.bytes, ids.first),
            Some(project) => self.shared(project, &disk, ids, wanted.bytes),
        };
        if made.is_err() && !mount::is_mount_point(&disk).unwrap_or(true) {
            // Nothing of one that could not be made.
            self.remove(id)?;
        }
        made.map(|()| disk)
    }

    /// A tmpfs at `target` whose root is `owner`'s; where it is there, its size.
    fn disk(&self, target: &Path, bytes: u64, owner: u32) -> Result<(), RamdiskError> {
        let wanted_bytes = (bytes / PAGE * PAGE).max(MIN_BYTES);
        let there = mount::is_mount_point(target).map_err(RamdiskError::io("inspect", target))?;
        let held = if there { size(target)? } else { 0 };
        if wanted_bytes > held {
            let free_bytes = self.pool_bytes.saturating_sub(pool::taken_bytes(&self.folder)?);
            if wanted_bytes - held > free_bytes {
                // What is there goes on as it is.
                return if there { Ok(()) } else { Err(RamdiskError::PoolFull { wanted_bytes, free_bytes }) };
            }
        } else if there {
            return Ok(());
        }
        let mut options = format!("size={wanted_bytes},nr_inodes={}", wanted_bytes / PAGE);
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        if there {
            flags |= MsFlags::MS_REMOUNT;
        } else {
            options.push_str(&format!(",mode=1777,uid={owner},gid={owner}"));
        }
        nix::mount::mount(Some("hoody-ramdisk"), target, Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|errno| RamdiskError::io("mount", target)(errno.into()))?;
        Ok(())
    }

    /// The project's, at `target` with the container's ids.
    fn shared(&self, project: ProjectId, target: &Path, ids: IdRange, bytes: u64) -> Result<(), RamdiskError> {
        let disk = self.of_project(project).join(DISK);
        make_folder(&disk, 0o700)?;
        // Its files have the ids that they have inside.
        self.disk(&disk, bytes, 0)?;
        let source = subvolume::open_folder(&disk).map_err(RamdiskError::io("open", &disk))?;
        let there = mount::is_idmapped(source.as_fd(), target, ids.first);
        if there.map_err(RamdiskError::io("inspect", target))? {
            return Ok(());
        }
        mount::unmount(target).map_err(RamdiskError::io("unmount", target))?;
        let mounted = user_namespace::create(ids)
            .and_then(|namespace| mount::idmapped(source.as_fd(), namespace.as_fd(), target, ATTRIBUTES));
        mounted.map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::EINVAL as i32 => RamdiskError::Unsupported,
            _ => RamdiskError::io("mount", target)(error),
        })
    }

    fn remove(&self, id: ContainerId) -> Result<(), RamdiskError> {
        let gate = self.gate(id);
        if !gate.exists() {
            return Ok(());
        }
        let project = self.mark(&gate)?;
        take_away(&gate.join(DISK))?;
        if let Some(project) = project
            && !self.is_used(project, id)?
        {
            let shared = self.of_project(project);
            take_away(&shared.join(DISK))?;
            remove_folder(&shared)?;
        }
        // Last: it says which project's may be left.
        let mark = gate.join(MARK);
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RamdiskError::io("remove", &mark)(error)),
            _ => remove_folder(&gate),
        }
    }

    /// True where a container other than `except` uses the project's.
    fn is_used(&self, project: ProjectId, except: ContainerId) -> Result<bool, RamdiskError> {
        for entry in fs::read_dir(&self.folder).map_err(RamdiskError::io("list", &self.folder))? {
            let path = entry.map_err(RamdiskError::io("list", &self.folder))?.path();
            if path != self.gate(except) && self.mark(&path)? == Some(project) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn mark(&self, gate: &Path) -> Result<Option<ProjectId>, RamdiskError> {
        let path = gate.join(MARK);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RamdiskError::io("read", &path)(error)),
        }
    }
}

/// Bytes of a file system.
fn size(path: &Path) -> Result<u64, RamdiskError> {
    usage(path).map(|found| found.total_bytes)
}

fn usage(path: &Path) -> Result<RamdiskStats, RamdiskError> {
    let found = statvfs(path).map_err(|errno| RamdiskError::io("measure", path)(errno.into()))?;
    let bytes = |blocks: u64| blocks * found.fragment_size() as u64;
    let used = found.blocks().saturating_sub(found.blocks_free());
    Ok(RamdiskStats { used_bytes: bytes(used as u64), total_bytes: bytes(found.blocks() as u64) })
}

/// Unmounts and removes a mount point.
fn take_away(disk: &Path) -> Result<(), RamdiskError> {
    mount::unmount(disk).map_err(RamdiskError::io("unmount", disk))?;
    remove_folder(disk)
}

fn remove_folder(path: &Path) -> Result<(), RamdiskError> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RamdiskError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), RamdiskError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(RamdiskError::io("make", path))
}
