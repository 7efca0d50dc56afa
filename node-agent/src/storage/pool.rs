//! [`Storage`] on a btrfs pool.
//!
//! Layout: `<pool>/containers/<id>` is the subvolume of a container, `<pool>/snapshots/<id>/` has its snapshots (see
//! [`super::snapshot`]). A snapshot is atomic, so it exists whole or not at all. `<mounts>/<id>/rootfs` is where it is mounted idmapped. An OCI runtime opens that path
//! as the container's root, so every folder above has to let it pass; of `<mounts>/<id>` only its group is
//! let pass, or any user of the host could run the container's setuid programs. Calls for one container are
//! serialised by a lock of their own; nothing else is shared but the kernel.

use super::{
    IdRange, QuotaMode, Replacement, Storage, StorageError, Usage, authorized_keys,
    blocking::{Blocking, Locks, Step},
    devices,
    ioctl::{self, Charge},
    layout::{CONTAINERS, CREATE_DEADLINE, DELETE_DEADLINE, LOOKUP_DEADLINE, SNAPSHOTS, TRANSFERS},
    mount, quota, snapshot, subvolume, user_namespace,
};
use async_trait::async_trait;
use hoody_protocol::{
    container::Limits,
    id::{ContainerId, SnapshotId},
    snapshot::{HeldSnapshot, Origin},
};
use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// Begins the name of a snapshot that has no limit yet; no id begins so.
const UNLIMITED: &str = ".unlimited-";
/// Name of the mount point inside its gate.
const MOUNT_POINT: &str = "rootfs";
/// The group may pass: the container's root.
const GATE_MODE: u32 = 0o710;
/// A container's root file system.
const ROOT_ATTRIBUTES: mount::Attributes = mount::Attributes { setuid: true, readonly: false };
/// Opening the pool: enabling quotas walks the whole tree of roots once.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
const MOUNT_DEADLINE: Duration = Duration::from_secs(15);
/// Looking through the quota groups costs some microseconds for each.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Where a pool is.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// A folder on a btrfs file system, for this agent alone.
    pub pool: PathBuf,
    /// Where root file systems are mounted, made with mode 0711. Every folder above it must let the
    /// containers' root pass too (measured: runc 1.1.5 fails with EACCES below a 0700 folder).
    pub mounts: PathBuf,
    /// How to count where quotas are still off; `Simple` falls back to `Full` on kernels without it.
    pub quota: QuotaMode,
}

/// Root file systems on a btrfs pool.
#[derive(Debug)]
pub struct BtrfsPool {
    shared: Arc<Shared>,
    blocking: Blocking,
    locks: Locks<ContainerId>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pool: PathBuf,
    pub(super) containers: PathBuf,
    pub(super) snapshots: PathBuf,
    mounts: PathBuf,
    pub(super) handle: OwnedFd,
    pub(super) mode: QuotaMode,
    /// Held while a quota group is made and before it has a member; alone by whoever removes those without.
    pub(super) groups: RwLock<()>,
    /// When quota groups were last looked through.
    swept: Mutex<Instant>,
}

impl BtrfsPool {
    /// Opens the pool: makes its folders, turns quotas on, makes the mounts folder private, and forgets the
    /// quota groups of subvolumes that are gone.
    pub async fn open(config: PoolConfig) -> Result<Self, StorageError> {
        let blocking = Blocking::default();
        let step = Step::new("open pool", &config.pool, OPEN_DEADLINE);
        let shared = blocking.run(step, async { None }, move || Shared::open(config)).await?;
        Ok(Self { shared: Arc::new(shared), blocking, locks: Locks::default() })
    }

    /// How the pool counts.
    pub fn quota_mode(&self) -> QuotaMode {
        self.shared.mode
    }

    /// Runs `work` off the async threads, with the container's lock where there is one.
    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        deadline: Duration,
        id: Option<ContainerId>,
        work: impl FnOnce(&Shared) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let path = id.map_or_else(|| self.shared.pool.clone(), |id| self.shared.root(id));
        let lock = async {
            match id {
                Some(id) => Some(self.locks.lock(id).await),
                None => None,
            }
        };
        let shared = self.shared.clone();
        self.blocking.run(Step::new(action, &path, deadline), lock, move || work(&shared)).await
    }
}

#[async_trait]
impl Storage for BtrfsPool {
    async fn create(&self, id: ContainerId, image: &Path, disk_bytes: u64) -> Result<(), StorageError> {
        let image = image.to_owned();
        self.run("create", CREATE_DEADLINE, Some(id), move |s| s.create(id, &image, disk_bytes)).await
    }

    async fn exists(&self, id: ContainerId) -> Result<bool, StorageError> {
        self.run("look up", LOOKUP_DEADLINE, None, move |s| Ok(s.find(id)?.is_some())).await
    }

    async fn mount(&self, id: ContainerId, ids: IdRange) -> Result<PathBuf, StorageError> {
        self.run("mount", MOUNT_DEADLINE, Some(id), move |s| s.mount(id, ids)).await
    }

    async fn unmount(&self, id: ContainerId) -> Result<(), StorageError> {
        self.run("unmount", MOUNT_DEADLINE, Some(id), move |s| s.unmount(id)).await
    }

    async fn delete(&self, id: ContainerId) -> Result<(), StorageError> {
        self.run("delete", DELETE_DEADLINE, Some(id), move |s| s.delete(id)).await
    }

    async fn copy(
        &self,
        id: ContainerId,
        origin: Origin,
        kept: Option<&Path>,
        disk_bytes: u64,
    ) -> Result<(), StorageError> {
        let kept = kept.map(Path::to_owned);
        self.run("copy", CREATE_DEADLINE, Some(id), move |s| s.copy(id, origin, kept.as_deref(), disk_bytes)).await
    }

    async fn receive(
        &self,
        id: ContainerId,
        received: &Path,
        disk_bytes: u64,
        same_machine: bool,
    ) -> Result<(), StorageError> {
        let received = received.to_owned();
        let receive = move |shared: &Shared| shared.receive(id, &received, disk_bytes, same_machine);
        self.run("receive", CREATE_DEADLINE, Some(id), receive).await
    }

    async fn take_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<u64, StorageError> {
        self.run("snapshot", CREATE_DEADLINE, Some(id), move |s| s.take_snapshot(id, snapshot)).await
    }

    async fn receive_snapshot(
        &self,
        id: ContainerId,
        snapshot: SnapshotId,
        received: &Path,
    ) -> Result<(), StorageError> {
        let received = received.to_owned();
        let receive = move |shared: &Shared| shared.receive_snapshot(id, snapshot, &received);
        self.run("receive a snapshot of", CREATE_DEADLINE, Some(id), receive).await
    }

    async fn delete_snapshot(&self, id: ContainerId, snapshot: SnapshotId) -> Result<(), StorageError> {
        self.run("delete a snapshot of", DELETE_DEADLINE, Some(id), move |s| s.delete_snapshot(id, snapshot)).await
    }

    async fn snapshots(&self, id: ContainerId) -> Result<Vec<HeldSnapshot>, StorageError> {
        self.run("list snapshots of", LOOKUP_DEADLINE, None, move |s| s.held_snapshots(id)).await
    }

    async fn swap_in(&self, id: ContainerId, with: &Replacement) -> Result<(), StorageError> {
        let with = with.clone();
        self.run("replace", CREATE_DEADLINE, Some(id), move |s| s.swap_in(id, &with)).await
    }

    async fn swap_back(&self, id: ContainerId) -> Result<(), StorageError> {
        self.run("bring back", DELETE_DEADLINE, Some(id), move |s| s.swap_back(id)).await
    }

    async fn is_aside(&self, id: ContainerId) -> Result<bool, StorageError> {
        self.run("look for what was before", LOOKUP_DEADLINE, Some(id), move |s| s.is_aside(id)).await
    }

    async fn forget_aside(&self, id: ContainerId) -> Result<(), StorageError> {
        self.run("delete what was before", DELETE_DEADLINE, Some(id), move |s| s.forget_aside(id)).await
    }

    async fn place_ssh_key(&self, id: ContainerId, key: Option<&str>) -> Result<(), StorageError> {
        let key = key.map(str::to_owned);
        self.run("write the SSH key into", LOOKUP_DEADLINE, Some(id), move |s| {
            let root = s.find(id)?.ok_or(StorageError::Missing { id })?;
            let placed = authorized_keys::place(root.as_fd(), key.as_deref());
            placed.map_err(StorageError::io("write authorized_keys in", &s.root(id)))
        })
        .await
    }

    async fn usage(&self, id: ContainerId) -> Result<Usage, StorageError> {
        self.run("measure", LOOKUP_DEADLINE, None, move |s| s.usage(id)).await
    }

    async fn pool_usage(&self) -> Result<Usage, StorageError> {
        self.run("measure", LOOKUP_DEADLINE, None, |s| space(s.handle.as_fd(), &s.pool)).await
    }

    async fn device_errors(&self) -> Result<u64, StorageError> {
        self.run("read the errors of", LOOKUP_DEADLINE, None, |s| {
            devices::errors(s.handle.as_fd()).map_err(StorageError::io("read the errors of", &s.pool))
        })
        .await
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, StorageError> {
        self.run("list", LOOKUP_DEADLINE, None, |s| s.inventory()).await
    }
}

impl Shared {
    fn open(config: PoolConfig) -> Result<Self, StorageError> {
        let PoolConfig { pool, mounts, quota: preferred } = config;
        let handle = subvolume::open_folder(&pool).map_err(StorageError::io("open", &pool))?;
        if !subvolume::is_btrfs(handle.as_fd()).map_err(StorageError::io("inspect", &pool))? {
            return Err(StorageError::NotBtrfs { path: pool });
        }
        let (containers, snapshots) = (pool.join(CONTAINERS), pool.join(SNAPSHOTS));
        make_folder(&containers, 0o700)?;
        make_folder(&snapshots, 0o700)?;
        make_folder(&mounts, 0o711)?;
        mount::make_private(&mounts).map_err(StorageError::io("make private", &mounts))?;
        let mode = quota::enable(handle.as_fd(), preferred).map_err(StorageError::io("enable quotas on", &pool))?;
        let (groups, swept) = (RwLock::default(), Mutex::new(Instant::now()));
        let opened = Self { pool, containers, snapshots, mounts, handle, mode, groups, swept };
        opened.mend()?;
        let removed_quota_groups = opened.remove_stale_quotas()?;
        tracing::info!(pool = %opened.pool.display(), ?mode, removed_quota_groups, "pool open");
        Ok(opened)
    }

    pub(super) fn root(&self, id: ContainerId) -> PathBuf {
        self.containers.join(id.to_string())
    }

    /// The folder around the mount point, which keeps everyone but the container's own root out.
    fn gate(&self, id: ContainerId) -> PathBuf {
        self.mounts.join(id.to_string())
    }

    fn mount_point(&self, id: ContainerId) -> PathBuf {
        root_mount(&self.mounts, id)
    }

    pub(super) fn find(&self, id: ContainerId) -> Result<Option<OwnedFd>, StorageError> {
        let path = self.root(id);
        subvolume::open(&path).map_err(StorageError::io("open", &path))
    }

    fn create(&self, id: ContainerId, image: &Path, disk_bytes: u64) -> Result<(), StorageError> {
        let path = self.root(id);
        if let Some(root) = self.find(id)? {
            return self.limit(id, root.as_fd(), disk_bytes).map_err(StorageError::io("limit", &path));
        }
        let source = subvolume::open(image)
            .map_err(StorageError::io("open", image))?
            .ok_or_else(|| StorageError::NotAnImage { path: image.to_owned() })?;
        if !ioctl::is_read_only(source.as_fd()).map_err(StorageError::io("inspect", image))? {
            return Err(StorageError::NotAnImage { path: image.to_owned() });
        }
        let needed = snapshot::inherited(source.as_fd()).map_err(StorageError::io("inspect", image))?;
        if needed > 0 && needed.saturating_add(Limits::MIN_DISK_BYTES) > disk_bytes {
            return Err(StorageError::CopyTooLarge { id, limit: disk_bytes, needed });
        }
        if self.mode == QuotaMode::Simple {
            return self.writable(id, source.as_fd(), &id.to_string(), disk_bytes).map(drop);
        }
        // With full accounting the kernel puts the image's limit over the one that comes with the snapshot,
        // so the limit is set before the container's name stands for it.
        let name = format!("{UNLIMITED}{id}");
        let made = self.containers.join(&name);
        subvolume::delete(self.handle.as_fd(), &made).map_err(StorageError::io("delete", &made))?;
        self.writable(id, source.as_fd(), &name, disk_bytes)?;
        fs::rename(&made, &path).map_err(StorageError::io("rename", &made))
    }

    /// Makes `name` beside the root file systems as a writable snapshot of `source`, under the container's limit.
    pub(super) fn writable(
        &self,
        id: ContainerId,
        source: BorrowedFd<'_>,
        name: &str,
        disk_bytes: u64,
    ) -> Result<OwnedFd, StorageError> {
        let made = self.containers.join(name);
        let parent = subvolume::open_folder(&self.containers).map_err(StorageError::io("open", &self.containers))?;
        let pool = self.handle.as_fd();
        let inherited = snapshot::inherited(source).map_err(StorageError::io("inspect", &made))?;
        let snapshot = || {
            let _held = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            let charge = match self.mode {
                QuotaMode::Full => Charge::Bytes(disk_bytes),
                QuotaMode::Simple => {
                    let group = quota::group_of(id);
                    ioctl::create_qgroup(pool, group)?;
                    ioctl::limit_quota(pool, group, Some(disk_bytes.saturating_sub(inherited)))?;
                    Charge::Group(group)
                }
            };
            ioctl::snapshot(source, parent.as_fd(), name, charge)
        };
        snapshot().map_err(StorageError::io("snapshot to", &made))?;
        let root = subvolume::open_folder(&made).map_err(StorageError::io("open", &made))?;
        if self.mode == QuotaMode::Full {
            self.limit(id, root.as_fd(), disk_bytes).map_err(StorageError::io("limit", &made))?;
        }
        Ok(root)
    }

    /// Limits what the container takes; its root file system, or what will be it, is `root`.
    pub(super) fn limit(&self, id: ContainerId, root: BorrowedFd<'_>, disk_bytes: u64) -> io::Result<()> {
        let pool = self.handle.as_fd();
        let subvolume = ioctl::subvolume_id(root)?;
        if self.mode == QuotaMode::Full {
            return ioctl::limit_quota(pool, subvolume, Some(disk_bytes));
        }
        let group = quota::group_of(id);
        let _held = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        ioctl::create_qgroup(pool, group)?;
        ioctl::limit_quota(pool, group, Some(disk_bytes.saturating_sub(snapshot::inherited(root)?)))?;
        // Made by an agent from before there were groups of containers: the limit was its own.
        if ioctl::assign_qgroup(pool, subvolume, group)? {
            ioctl::limit_quota(pool, subvolume, None)?;
        }
        Ok(())
    }

    /// After a crash: deletes what never got its name, and brings back what was set aside for nothing.
    fn mend(&self) -> Result<(), StorageError> {
        for entry in fs::read_dir(&self.containers).map_err(StorageError::io("list", &self.containers))? {
            let entry = entry.map_err(StorageError::io("list", &self.containers))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with(UNLIMITED) || name.starts_with(snapshot::STAGED) {
                subvolume::delete(self.handle.as_fd(), &path).map_err(StorageError::io("delete", &path))?;
            } else if let Some(Ok(id)) = name.strip_prefix(snapshot::ASIDE).map(str::parse) {
                self.settle_swap(id)?;
            }
        }
        Ok(())
    }

    fn mount(&self, id: ContainerId, ids: IdRange) -> Result<PathBuf, StorageError> {
        if ids.first < IdRange::LENGTH || ids.first.checked_add(IdRange::LENGTH).is_none() {
            return Err(StorageError::InvalidIds { first: ids.first });
        }
        let root = self.find(id)?.ok_or(StorageError::Missing { id })?;
        let target = self.mount_point(id);
        let share = || mount::make_shared(&target).map_err(StorageError::io("share the mount", &target));
        if mount::is_idmapped(root.as_fd(), &target, ids.first).map_err(StorageError::io("inspect", &target))? {
            // Mounted by an agent that did not live to do it, or from before it did.
            share()?;
            return Ok(target);
        }
        let gate = self.gate(id);
        make_folder(&gate, 0o700)?;
        make_folder(&target, 0o700)?;
        fs::set_permissions(&gate, Permissions::from_mode(GATE_MODE))
            .and_then(|()| std::os::unix::fs::chown(&gate, Some(0), Some(ids.first)))
            .map_err(StorageError::io("set owner of", &gate))?;
        // Another subvolume or other ids, left behind by something that is over.
        mount::unmount(&target).map_err(StorageError::io("unmount", &target))?;
        hoody_fault::point!("mount.gate");
        user_namespace::create(ids)
            .and_then(|namespace| mount::idmapped(root.as_fd(), namespace.as_fd(), &target, ROOT_ATTRIBUTES))
            .map_err(StorageError::io("mount", &target))?;
        share()?;
        Ok(target)
    }

    fn unmount(&self, id: ContainerId) -> Result<(), StorageError> {
        let target = self.mount_point(id);
        mount::unmount(&target).map_err(StorageError::io("unmount", &target))?;
        hoody_fault::point!("mount.unmounted");
        for folder in [target, self.gate(id)] {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(StorageError::io("remove mount point", &folder))?,
            }
        }
        Ok(())
    }

    fn delete(&self, id: ContainerId) -> Result<(), StorageError> {
        self.unmount(id)?;
        let path = self.root(id);
        subvolume::delete(self.handle.as_fd(), &path).map_err(StorageError::io("delete", &path))?;
        self.delete_beside(id)?;
        // Groups of earlier deletions whose space has come back since; this one's is too early. (Newer
        // kernels do it themselves.)
        let due = {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            let due = swept.elapsed() >= SWEEP_INTERVAL;
            if due {
                *swept = Instant::now();
            }
            due
        };
        if due {
            self.remove_stale_quotas()?;
        }
        Ok(())
    }

    fn remove_stale_quotas(&self) -> Result<usize, StorageError> {
        let pool = self.handle.as_fd();
        let sweep = || {
            let removed = quota::remove_stale(pool)?;
            if self.mode == QuotaMode::Simple {
                let _alone = self.groups.write().unwrap_or_else(PoisonError::into_inner);
                let entries = fs::read_dir(&self.containers)?.collect::<io::Result<Vec<_>>>()?;
                let names =
                    entries.iter().filter_map(|entry| entry.file_name().to_str()?.rsplit('-').next()?.parse().ok());
                let mut used: BTreeSet<u64> = names.map(quota::group_of).collect();
                // Made after the container's folder there.
                used.extend(received_for(&self.pool.join(TRANSFERS))?.into_iter().map(quota::group_of_received));
                quota::remove_unused(pool, |group| used.contains(&group))?;
            }
            Ok(removed)
        };
        sweep().map_err(StorageError::io("clean quotas of", &self.pool))
    }

    pub(super) fn usage(&self, id: ContainerId) -> Result<Usage, StorageError> {
        let root = self.find(id)?.ok_or(StorageError::Missing { id })?;
        let measured = || {
            let pool = self.handle.as_fd();
            let own = quota::usage(pool, ioctl::subvolume_id(root.as_fd())?)?;
            let (used, limit) = match self.mode {
                QuotaMode::Full => own,
                // One without a limit: the root file system's own still counts.
                QuotaMode::Simple => match quota::usage(pool, quota::group_of(id))? {
                    (_, None) => own,
                    group => group,
                },
            };
            let inherited = snapshot::inherited(root.as_fd())?;
            Ok((used + inherited, limit.map(|limit| limit.saturating_add(inherited))))
        };
        let (used_bytes, limit) = measured().map_err(StorageError::io("measure", &self.root(id)))?;
        let total_bytes = match limit {
            Some(limit) => limit,
            None => space(self.handle.as_fd(), &self.pool)?.total_bytes,
        };
        Ok(Usage { used_bytes, total_bytes })
    }

    fn inventory(&self) -> Result<Vec<ContainerId>, StorageError> {
        let mut found = BTreeSet::new();
        for folder in [&self.containers, &self.snapshots, &self.mounts] {
            let wrap = |error| StorageError::io("list", folder)(error);
            for entry in fs::read_dir(folder).map_err(wrap)? {
                let name = entry.map_err(wrap)?.file_name();
                found.extend(name.to_str().and_then(|name| name.parse::<ContainerId>().ok()));
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// Where a container's root file system is mounted, below the folder of all such mounts.
pub(crate) fn root_mount(mounts: &Path, id: ContainerId) -> PathBuf {
    mounts.join(id.to_string()).join(MOUNT_POINT)
}

/// Size of the file system and what of it is not available; `total - used` is what can still be written.
pub(crate) fn space(file: BorrowedFd<'_>, path: &Path) -> Result<Usage, StorageError> {
    let found = nix::sys::statfs::fstatfs(file).map_err(|e| StorageError::io("measure", path)(e.into()))?;
    let block = found.block_size() as u64;
    let total_bytes = found.blocks().saturating_mul(block);
    Ok(Usage { used_bytes: total_bytes.saturating_sub(found.blocks_available().saturating_mul(block)), total_bytes })
}

/// The containers for which something was, or is being, received.
fn received_for(folder: &Path) -> io::Result<Vec<ContainerId>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), StorageError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(StorageError::io("make folder", path))
}
