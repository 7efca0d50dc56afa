//! What copies of containers on other servers are based on: read-only subvolumes, on the source as sent and on the
//! target as received, both under the transfer's id.
//!
//! `<pool>/transfers/<container>/<transfer>` is one of them, complete. What has another name is being made, and goes
//! when the agent starts. On the target the container is a writable snapshot of the received subvolume, which stays
//! read-only and as it came: a later transfer is the difference from it.

use super::{
    StorageError,
    blocking::{Blocking, Locks, Step},
    divergence,
    ioctl::{self, Charge},
    layout::{CREATE_DEADLINE, DELETE_DEADLINE, LOOKUP_DEADLINE, TRANSFERS},
    quota,
    receive::{ReceiveError, Room, run, stream::Uuid},
    send::{self, SendStream},
    snapshot, subvolume, transfer_ioctl,
};
use hoody_protocol::{
    id::{ContainerId, TransferId},
    stream_digest::{StreamDigest, StreamHasher},
};
use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncWriteExt;

/// Begins the name of what is not complete; no id begins so.
const PARTIAL: &str = ".part-";
/// Going through a file system once, without its data.
const MEASURE_DEADLINE: Duration = Duration::from_secs(600);
/// Writing out what is still in memory of what was received.
const FLUSH_DEADLINE: Duration = Duration::from_secs(300);
/// The time a whole stream has.
const STREAM_DEADLINE: Duration = Duration::from_secs(12 * 3600);
/// The time the receiver has for what is in its pipe.
const STALL_DEADLINE: Duration = Duration::from_secs(120);

/// Why a stream was not received, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A step on the pool failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The stream was not carried out.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// What the stream is the difference from is not here.
    #[error("transfer {0}, from which this one is the difference, is not here")]
    NoBase(TransferId),
    /// The stream is longer than it may be.
    #[error("the stream has more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// The receiver does not take the bytes.
    #[error("the receiver took nothing for {} s", STALL_DEADLINE.as_secs())]
    Stalled,
    /// What came is not what was sent.
    #[error("{got} bytes came with digest {found}, {bytes} with {sent} were sent")]
    Digest {
        /// Bytes that came.
        got: u64,
        /// Their digest.
        found: StreamDigest,
        /// Bytes that were sent.
        bytes: u64,
        /// Their digest.
        sent: StreamDigest,
    },
}

/// The lineages of a pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lineages {
    pool: Arc<OwnedFd>,
    folder: PathBuf,
    blocking: Blocking,
    /// Held by whatever makes or deletes something of a container: a step that its caller gave up ends before the next.
    locks: Arc<Locks<ContainerId>>,
    program: PathBuf,
}

impl Lineages {
    /// Opens them on `pool` and removes what a crash left. `program` is the agent, which is the receiver too.
    pub async fn open(pool: &Path, program: PathBuf) -> Result<Self, StorageError> {
        let (blocking, pool) = (Blocking::default(), pool.to_owned());
        let folder = pool.join(TRANSFERS);
        let step = Step::new("open", &folder, DELETE_DEADLINE);
        let opening = folder.clone();
        let pool = blocking.run(step, async { None }, move || open(&pool, &opening)).await?;
        Ok(Self { pool: Arc::new(pool), folder, blocking, locks: Arc::default(), program })
    }

    /// Where the subvolume of a transfer is, once it is complete.
    pub fn path(&self, container: ContainerId, transfer: TransferId) -> PathBuf {
        self.folder_of(container).join(transfer.to_string())
    }

    /// True where the subvolume of the transfer is here, complete.
    pub async fn has(&self, container: ContainerId, transfer: TransferId) -> Result<bool, StorageError> {
        let path = self.path(container, transfer);
        self.run("look up", LOOKUP_DEADLINE, path.clone(), move |_| is_complete(&path)).await
    }

    /// Keeps the subvolume at `source` as it is now, to be sent; where the transfer has it already, that stays.
    pub async fn keep(&self, container: ContainerId, transfer: TransferId, source: &Path) -> Result<(), StorageError> {
        let (path, partial) = (self.path(container, transfer), self.partial(container, transfer));
        let (folder, source) = (self.folder_of(container), source.to_owned());
        self.run_alone(container, Step::new("keep", &path.clone(), CREATE_DEADLINE), move |pool| {
            if is_complete(&path)? {
                return Ok(());
            }
            let folder = make_folder(&folder)?;
            delete(pool, &partial)?;
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            let kept = subvolume::open(&source)
                .and_then(|top| top.ok_or_else(missing))
                .and_then(|top| ioctl::read_only_snapshot(top.as_fd(), folder.as_fd(), &name(&partial)));
            kept.map_err(StorageError::io("keep", &source))?;
            hoody_fault::point!("transfer.kept");
            fs::rename(&partial, &path).map_err(StorageError::io("rename", &partial))
        })
        .await
    }

    /// Starts sending what is kept, whole or as the difference from `base`, which is of the same container.
    pub async fn send(
        &self,
        container: ContainerId,
        transfer: TransferId,
        base: Option<TransferId>,
    ) -> Result<SendStream, StorageError> {
        let (top, base) = (self.path(container, transfer), base.map(|base| self.path(container, base)));
        let started = self.run("send", LOOKUP_DEADLINE, top.clone(), move |_| {
            let (opened, base) = open_both(&top, base.as_deref())?;
            // A pipe belongs to the async runtime that is entered here.
            Ok((top, opened, base))
        });
        let (path, top, base) = started.await?;
        send::start(top, base).map_err(StorageError::io("send", &path))
    }

    /// Bytes that [`Lineages::send`] will come to, about.
    pub async fn measure(
        &self,
        container: ContainerId,
        transfer: TransferId,
        base: Option<TransferId>,
    ) -> Result<u64, StorageError> {
        let (top, base) = (self.path(container, transfer), base.map(|base| self.path(container, base)));
        self.run("measure", MEASURE_DEADLINE, top.clone(), move |_| {
            let (opened, base) = open_both(&top, base.as_deref())?;
            send::measure(opened, base).map_err(StorageError::io("measure", &top))
        })
        .await
    }

    /// Bytes of what is kept that count as the container's own: what it and its snapshots were charged, and what it began
    /// with.
    pub async fn own_bytes(&self, container: ContainerId, transfer: TransferId) -> Result<u64, StorageError> {
        let top = self.path(container, transfer);
        self.run("measure", LOOKUP_DEADLINE, top.clone(), move |pool| {
            let measured = || {
                let kept = subvolume::open_folder(&top)?;
                let (charged, _) = quota::usage(pool.as_fd(), quota::group_of(container))?;
                Ok(charged + snapshot::inherited(kept.as_fd())?)
            };
            measured().map_err(StorageError::io("measure", &top))
        })
        .await
    }

    /// Bytes that the subvolumes of these transfers take on the disk, what they share counted once; `None`: not all of them
    /// are here, complete.
    pub async fn taken(&self, container: ContainerId, transfers: &[TransferId]) -> Result<Option<u64>, StorageError> {
        let paths: Vec<_> = transfers.iter().map(|transfer| self.path(container, *transfer)).collect();
        self.run("measure", LOOKUP_DEADLINE, self.folder_of(container), move |pool| {
            let mut taken = 0u64;
            for path in paths {
                if !is_complete(&path)? {
                    return Ok(None);
                }
                let used = subvolume::open_folder(&path)
                    .and_then(|top| ioctl::subvolume_id(top.as_fd()))
                    .and_then(|group| quota::usage(pool.as_fd(), group));
                taken = taken.saturating_add(used.map_err(StorageError::io("measure", &path))?.0);
            }
            Ok(Some(taken))
        })
        .await
    }

    /// Begins to receive a transfer: into an empty subvolume, or, where the stream is the difference from `base`, into
    /// a snapshot of that. It may take `room.bytes` on the disk, with all that was received before and is still there
    /// `room.all_bytes`, and the stream may have `room.stream_bytes`.
    pub async fn stage(
        &self,
        container: ContainerId,
        transfer: TransferId,
        base: Option<TransferId>,
        room: Room,
    ) -> Result<Staging, StageError> {
        let partial = self.partial(container, transfer);
        let from = base.map(|base| self.path(container, base));
        let (folder, staged) = (self.folder_of(container), partial.clone());
        let made = self.run_alone(container, Step::new("stage", &partial, CREATE_DEADLINE), move |pool| {
            let folder = make_folder(&folder)?;
            delete(pool, &staged)?;
            make_staged(pool, &folder, &staged, from.as_deref(), (container, room))
        });
        let parent = match (made.await?, base) {
            (Made::NoBase, Some(base)) => return Err(StageError::NoBase(base)),
            (Made::From(parent), _) => Some(parent),
            (Made::Empty | Made::NoBase, _) => None,
        };
        hoody_fault::point!("transfer.staged");
        let running = run::start(&self.program, &partial, parent, STREAM_DEADLINE)?;
        Ok(Staging {
            lineages: self.clone(),
            container,
            path: self.path(container, transfer),
            partial,
            running,
            hasher: StreamHasher::new(),
            bytes: 0,
            limit: room.stream_bytes,
            own_bytes: 0,
        })
    }

    /// Removes what came of a transfer that failed.
    pub async fn discard(&self, container: ContainerId, transfer: TransferId) -> Result<(), StorageError> {
        let partial = self.partial(container, transfer);
        let step = Step::new("discard", &partial.clone(), DELETE_DEADLINE);
        self.run_alone(container, step, move |pool| delete(pool, &partial)).await
    }

    /// Removes what the container has of transfers, but for those in `keep`.
    pub async fn retain(&self, container: ContainerId, keep: Vec<TransferId>) -> Result<(), StorageError> {
        let folder = self.folder_of(container);
        self.run_alone(container, Step::new("clean", &folder.clone(), DELETE_DEADLINE), move |pool| {
            for path in entries(&folder)? {
                let name = name(&path);
                // What is just being received of one that stays does too.
                let id = name.strip_prefix(PARTIAL).unwrap_or(&name).parse().ok();
                if !id.is_some_and(|id| keep.contains(&id)) {
                    delete(pool, &path)?;
                }
            }
            match fs::remove_dir(&folder) {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    Err(StorageError::io("remove", &folder)(error))
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// True where the root file system at `root` was changed by somebody since it was made from a transfer, which is
    /// still here.
    pub async fn diverged(&self, container: ContainerId, base: TransferId, root: &Path) -> Result<bool, StorageError> {
        let (base, root) = (self.path(container, base), root.to_owned());
        // Never complete: it goes after the look, or when the agent starts.
        let now = self.partial(container, TransferId::generate());
        self.run_alone(container, Step::new("compare", &root.clone(), MEASURE_DEADLINE), move |pool| {
            let (kept, base) = open_both(&base, Some(&base))?;
            drop(kept);
            let folder =
                subvolume::open_folder(now.parent().unwrap_or(&now)).map_err(StorageError::io("open", &now))?;
            let taken = subvolume::open_folder(&root)
                .and_then(|top| ioctl::read_only_snapshot(top.as_fd(), folder.as_fd(), &name(&now)));
            taken.map_err(StorageError::io("keep", &root))?;
            let look = || divergence::diverged(subvolume::open_folder(&now)?, base.unwrap_or_default());
            let diverged = look().map_err(StorageError::io("compare", &root));
            delete(pool, &now)?;
            diverged
        })
        .await
    }

    fn folder_of(&self, container: ContainerId) -> PathBuf {
        self.folder.join(container.to_string())
    }

    fn partial(&self, container: ContainerId, transfer: TransferId) -> PathBuf {
        self.folder_of(container).join(format!("{PARTIAL}{transfer}"))
    }

    /// [`Lineages::run`], with nothing else being made or deleted of the container.
    async fn run_alone<T: Send + 'static>(
        &self,
        container: ContainerId,
        step: Step,
        work: impl FnOnce(&OwnedFd) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let pool = self.pool.clone();
        let lock = async { Some(self.locks.lock(container).await) };
        self.blocking.run(step, lock, move || work(&pool)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        deadline: Duration,
        path: PathBuf,
        work: impl FnOnce(&OwnedFd) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let pool = self.pool.clone();
        self.blocking.run(Step::new(action, &path, deadline), async { None }, move || work(&pool)).await
    }
}

/// A transfer being received. Dropped, it is given up; what is left of it goes with the next try, or the next start.
#[derive(Debug)]
pub struct Staging {
    lineages: Lineages,
    container: ContainerId,
    path: PathBuf,
    partial: PathBuf,
    running: run::Running,
    hasher: StreamHasher,
    bytes: u64,
    limit: u64,
    own_bytes: u64,
}

impl Staging {
    /// Bytes of the stream that were taken.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Says how many bytes of what comes count as the container's own: its root file system begins with them.
    pub fn counts(&mut self, own_bytes: u64) {
        self.own_bytes = own_bytes;
    }

    /// Takes the next bytes of the stream.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), StageError> {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        if self.bytes > self.limit {
            return Err(StageError::TooLong { limit: self.limit });
        }
        self.hasher.update(piece);
        match tokio::time::timeout(STALL_DEADLINE, self.running.input.write_all(piece)).await {
            Ok(Ok(())) => Ok(()),
            // The receiver has ended: it says why.
            Ok(Err(error)) => match (&mut self.running.ended).await {
                Ok(Err(why)) => Err(why.into()),
                Ok(Ok(_)) => Err(ReceiveError::Apply(error).into()),
                Err(_) => Err(ReceiveError::CutOff.into()),
            },
            Err(_) => Err(StageError::Stalled),
        }
    }

    /// Ends the stream: where it was carried out and is what was sent, its subvolume is made read-only and gets its
    /// name, which is returned.
    pub async fn finish(self, bytes: u64, sent: StreamDigest) -> Result<PathBuf, StageError> {
        let Self { lineages, container, path, partial, running, hasher, bytes: got, own_bytes, .. } = self;
        drop(running.input);
        let tally = running.ended.await.map_err(|_| ReceiveError::CutOff)??;
        let found = hasher.digest();
        if (got, found) != (bytes, sent) {
            return Err(StageError::Digest { got, found, bytes, sent });
        }
        tracing::debug!(path = %path.display(), ?tally, "a stream was carried out");
        let complete = path.clone();
        let done = lineages.run_alone(container, Step::new("complete", &path, FLUSH_DEADLINE), move |pool| {
            let top = subvolume::open_folder(&partial).map_err(StorageError::io("open", &partial))?;
            nix::unistd::syncfs(top.as_fd()).map_err(|e| StorageError::io("flush", &partial)(e.into()))?;
            let received = snapshot::set_inherited(top.as_fd(), own_bytes)
                .and_then(|()| transfer_ioctl::set_received(top.as_fd(), tally.uuid, tally.generation));
            received.map_err(StorageError::io("complete", &partial))?;
            // Something incomplete may be in the place.
            delete(pool, &complete)?;
            fs::rename(&partial, &complete).map_err(StorageError::io("rename", &partial))?;
            hoody_fault::point!("transfer.received");
            // Last, because this commits: only what has both its name and this is complete, and with both it is on the disk.
            ioctl::set_read_only(top.as_fd(), true).map_err(StorageError::io("complete", &complete))?;
            Ok(complete)
        });
        Ok(done.await?)
    }
}

/// What a stream is received into.
enum Made {
    Empty,
    /// A snapshot of what was received from the subvolume with this identity.
    From(Uuid),
    NoBase,
}

fn make_staged(
    pool: &OwnedFd,
    folder: &OwnedFd,
    staged: &Path,
    base: Option<&Path>,
    (container, room): (ContainerId, Room),
) -> Result<Made, StorageError> {
    let failed = StorageError::io;
    let made = match base {
        None => {
            ioctl::create_subvolume(folder.as_fd(), &name(staged)).map_err(failed("make subvolume", staged))?;
            Made::Empty
        }
        Some(base) => {
            let Some(top) = subvolume::open(base).map_err(failed("open", base))? else { return Ok(Made::NoBase) };
            let Some(from) = transfer_ioctl::received_from(top.as_fd()).map_err(failed("inspect", base))? else {
                return Ok(Made::NoBase);
            };
            let snapshot = ioctl::snapshot(top.as_fd(), folder.as_fd(), &name(staged), Charge::Bytes(room.bytes));
            snapshot.map_err(failed("snapshot to", staged))?;
            Made::From(from)
        }
    };
    // With full accounting a snapshot has the limit of what it was made from; an empty subvolume has none.
    limit(pool, container, staged, room).map_err(failed("limit", staged))?;
    Ok(made)
}

fn limit(pool: &OwnedFd, container: ContainerId, staged: &Path, room: Room) -> io::Result<()> {
    let (pool, top) = (pool.as_fd(), subvolume::open_folder(staged)?);
    let id = ioctl::subvolume_id(top.as_fd())?;
    ioctl::limit_quota(pool, id, Some(room.bytes))?;
    if quota::is_simple(pool)? {
        let group = quota::group_of_received(container);
        ioctl::create_qgroup(pool, group)?;
        ioctl::limit_quota(pool, group, Some(room.all_bytes))?;
        ioctl::assign_qgroup(pool, id, group)?;
    }
    Ok(())
}

fn open_both(top: &Path, base: Option<&Path>) -> Result<(OwnedFd, Option<u64>), StorageError> {
    let open = |path: &Path| {
        subvolume::open(path)
            .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(StorageError::io("open", path))
    };
    let id = |path: &Path| {
        let base = open(path)?;
        ioctl::subvolume_id(base.as_fd()).map_err(StorageError::io("inspect", path))
    };
    Ok((open(top)?, base.map(id).transpose()?))
}

fn open(pool: &Path, folder: &Path) -> Result<OwnedFd, StorageError> {
    let handle = subvolume::open_folder(pool).map_err(StorageError::io("open", pool))?;
    if !subvolume::is_btrfs(handle.as_fd()).map_err(StorageError::io("inspect", pool))? {
        return Err(StorageError::NotBtrfs { path: pool.to_owned() });
    }
    make_folder(folder)?;
    for container in entries(folder)? {
        for path in entries(&container)? {
            if !is_complete(&path)? {
                tracing::info!(path = %path.display(), "removing what a crash left");
                delete(&handle, &path)?;
            }
        }
    }
    Ok(handle)
}

/// True where the path is a read-only subvolume.
fn is_complete(path: &Path) -> Result<bool, StorageError> {
    let partial = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PARTIAL.as_bytes()));
    match subvolume::open(path).map_err(StorageError::io("open", path))? {
        Some(top) if !partial => ioctl::is_read_only(top.as_fd()).map_err(StorageError::io("inspect", path)),
        _ => Ok(false),
    }
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let failed = StorageError::io("list", folder);
    match fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(failed),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn make_folder(path: &Path) -> Result<OwnedFd, StorageError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| subvolume::open_folder(path)).map_err(StorageError::io("make folder", path))
}

fn delete(pool: &OwnedFd, path: &Path) -> Result<(), StorageError> {
    subvolume::delete(pool.as_fd(), path).map_err(StorageError::io("delete", path))
}
