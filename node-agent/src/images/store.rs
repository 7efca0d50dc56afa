//! [`Images`] on a btrfs pool.
//!
//! Layout: `<pool>/images/<digest>` is an image, complete as soon as it is a read-only subvolume;
//! `<pool>/staging/<digest>-<number>` is one being made. An image is unpacked in staging, flushed, moved into
//! place and only then made read-only, which commits the file system: a crash leaves either a whole image or
//! something that is not read-only, which is deleted when the store is opened or the image is wanted again.
//!
//! Images that no container names are collected ([`super::collect`]).
//!
//! One task makes one image; callers that want the same one wait for it. The task goes on when its callers
//! give up: each of its steps has a deadline.

use super::{
    BlobSource, ImageError, Images, InUse,
    blobs::{Blobs, Claim},
    unpack::{Limits, Tally, run},
};
use crate::storage::{
    StorageError,
    blocking::{Blocking, Step},
    charge, ioctl, space, subvolume,
};
use async_trait::async_trait;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use hoody_protocol::image::{Digest, ImageSpec, Layer, MAX_LAYER_BYTES};
use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, RwLock};

const IMAGES: &str = "images";
const STAGING: &str = "staging";
const MARKS: &str = "used";
/// Room that an image may need, as a multiple of its compressed size.
const SPACE_FACTOR: u64 = 3;
const LOOKUP_DEADLINE: Duration = Duration::from_secs(15);
/// Deleting leftovers of crashes, all of them.
const CLEAN_DEADLINE: Duration = Duration::from_secs(300);
/// Flushing an image of some gigabytes to a slow disk.
const COMMIT_DEADLINE: Duration = Duration::from_secs(600);
/// What the thread that waits for the unpacker has beyond the unpacker's own deadline.
const KILL_GRACE: Duration = Duration::from_secs(30);

/// Where images are kept, and what they may come to.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// The btrfs pool's folder, the same as the containers'.
    pub pool: PathBuf,
    /// A folder for blobs that are being transferred, on any file system.
    pub blobs: PathBuf,
    /// The agent's program, which is the unpacker too: `/proc/self/exe`, which stays right when the file is
    /// replaced by an upgrade.
    pub unpacker: PathBuf,
    /// Bytes that stay free in the pool whatever image is wanted.
    pub reserve_bytes: u64,
    /// Bytes of one image's layers, compressed.
    pub max_compressed_bytes: u64,
    /// Bytes of one image's files.
    pub max_unpacked_bytes: u64,
    /// Entries of one layer.
    pub max_entries: u64,
    /// How long an image is kept after its last use.
    pub keep: Duration,
    /// How long a transfer may bring too little.
    pub stall_deadline: Duration,
    /// How long the unpacking of one layer may take.
    pub unpack_deadline: Duration,
}

impl ImageConfig {
    /// The configuration with the usual limits.
    pub fn new(pool: PathBuf, blobs: PathBuf, unpacker: PathBuf) -> Self {
        Self {
            pool,
            blobs,
            unpacker,
            reserve_bytes: 1 << 30,
            max_compressed_bytes: MAX_LAYER_BYTES,
            max_unpacked_bytes: 256 << 30,
            max_entries: 2_000_000,
            keep: Duration::from_secs(7 * 24 * 3600),
            stall_deadline: Duration::from_secs(30),
            unpack_deadline: Duration::from_secs(1800),
        }
    }
}

type Work = Shared<BoxFuture<'static, Result<PathBuf, Arc<ImageError>>>>;

/// The image store of the node.
#[derive(Debug)]
pub struct ImageStore {
    shared: Arc<Store>,
    works: Mutex<HashMap<Digest, Work>>,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) config: ImageConfig,
    pub(super) images: PathBuf,
    staging: PathBuf,
    /// When which image was last used.
    pub(super) marks: PathBuf,
    /// Held while an image is looked for by somebody who will use it; alone, while one is deleted.
    pub(super) finding: RwLock<()>,
    /// An image did not fit since the last collection.
    pub(super) short: AtomicBool,
    pub(super) shortage: Notify,
    handle: Arc<OwnedFd>,
    blobs: Arc<Blobs>,
    blocking: Blocking,
    next: AtomicU64,
}

impl ImageStore {
    /// Opens the store: makes its folders and removes what crashes left behind.
    pub async fn open(config: ImageConfig, source: Arc<dyn BlobSource>) -> Result<Self, ImageError> {
        let blocking = Blocking::default();
        let [images, staging, marks] = [IMAGES, STAGING, MARKS].map(|name| config.pool.join(name));
        let step = Step::new("open images of", &config.pool, CLEAN_DEADLINE);
        let (pool, folders) = (config.pool.clone(), [images.clone(), staging.clone()]);
        let handle = blocking.run(step, async { None }, move || prepare(pool, folders)).await?;
        let blobs = Arc::new(Blobs::open(config.blobs.clone(), source, config.stall_deadline).await?);
        let next = AtomicU64::new(0);
        let keep_marks = marks.clone();
        let make = move || make_folder(&keep_marks);
        blocking.run(Step::new("make", &marks, LOOKUP_DEADLINE), async { None }, make).await?;
        let store = Store {
            config,
            images,
            staging,
            marks,
            finding: RwLock::default(),
            short: AtomicBool::default(),
            shortage: Notify::new(),
            handle: Arc::new(handle),
            blobs,
            blocking,
            next,
        };
        Ok(Self { shared: Arc::new(store), works: Mutex::default() })
    }

    /// Deletes an image; success where there is none. Containers made from it keep their files.
    pub async fn remove(&self, image: Digest) -> Result<(), ImageError> {
        self.shared.delete(self.shared.images.join(image.hex())).await
    }

    /// The work on an image, started where nobody is at it.
    fn work(&self, image: &ImageSpec) -> Work {
        let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        works.retain(|_, work| work.peek().is_none());
        works
            .entry(image.digest)
            .or_insert_with(|| {
                let (store, image) = (self.shared.clone(), image.clone());
                let digest = image.digest;
                let task = tokio::spawn(async move { store.make(&image).await.map_err(Arc::new) });
                let cut_off = move |_| Err(Arc::new(ImageError::CutOff { image: digest }));
                async move { task.await.unwrap_or_else(cut_off) }.boxed().shared()
            })
            .clone()
    }
}

#[async_trait]
impl Images for ImageStore {
    async fn ensure(&self, image: &ImageSpec) -> Result<PathBuf, ImageError> {
        if !image.is_consistent() {
            return Err(ImageError::Inconsistent { image: image.digest });
        }
        let found = {
            let _finding = self.shared.finding.read().await;
            let found = self.shared.find(image.digest).await?;
            if found.is_some() {
                self.shared.used(image.digest).await?;
            }
            found
        };
        match found {
            Some(path) => Ok(path),
            None => self.work(image).await.map_err(ImageError::Shared),
        }
    }

    async fn collect(&self, in_use: InUse<'_>) -> Result<Vec<Digest>, ImageError> {
        self.shared.collect(in_use).await
    }

    async fn short_of_room(&self) {
        self.shared.shortage.notified().await;
    }
}

impl Store {
    /// The image, where it is complete.
    pub(super) async fn find(&self, image: Digest) -> Result<Option<PathBuf>, ImageError> {
        let path = self.images.join(image.hex());
        let step = Step::new("look up image", &path, LOOKUP_DEADLINE);
        let found = path.clone();
        let complete = self.blocking.run(step, async { None }, move || is_complete(&found)).await?;
        Ok(complete.then_some(path))
    }

    /// A short step on a file of the pool.
    pub(super) async fn quick<T: Send + 'static>(
        &self,
        action: &'static str,
        path: &Path,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, ImageError> {
        let failed = path.to_owned();
        let step = Step::new(action, path, LOOKUP_DEADLINE);
        self.blocking.run(step, async { None }, move || work().map_err(ImageError::io(action, &failed))).await
    }

    async fn make(&self, image: &ImageSpec) -> Result<PathBuf, ImageError> {
        // Another task may have ended between the caller's look and this one's start.
        if let Some(path) = self.find(image.digest).await? {
            return Ok(path);
        }
        let bytes = image.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        let limit = self.config.max_compressed_bytes;
        if bytes > limit || image.layers.iter().any(|layer| layer.size > MAX_LAYER_BYTES) {
            return Err(ImageError::TooLarge { image: image.digest, bytes, limit });
        }
        self.blobs.remove_stale().await?;
        if let Err(error) = self.check_space(image, bytes).await {
            if matches!(error, ImageError::NoSpace { .. }) {
                self.short.store(true, Ordering::Relaxed);
                self.shortage.notify_one();
            }
            return Err(error);
        }
        let staged = self.staging.join(format!("{}-{}", image.digest.hex(), self.next.fetch_add(1, Ordering::Relaxed)));
        let mut claims: Vec<Claim> = image.layers.iter().map(|layer| self.blobs.claim(layer.digest)).collect();
        let made = match self.fill(image, &staged).await {
            Ok(()) => {
                hoody_fault::point!("image.unpacked");
                self.commit(image, &staged).await
            }
            Err(error) => Err(error),
        };
        if made.is_ok() || made.as_ref().is_err_and(|error| !error.is_retryable()) {
            claims.iter_mut().for_each(Claim::use_up);
        }
        if made.is_err()
            && let Err(error) = self.delete(staged).await
        {
            tracing::warn!(image = %image.digest, error = &error as &dyn std::error::Error, "staged image left");
        }
        made
    }

    /// Makes the staging subvolume and unpacks every layer into it; the next layer is fetched meanwhile.
    async fn fill(&self, image: &ImageSpec, staged: &Path) -> Result<(), ImageError> {
        self.create_staged(staged).await?;
        hoody_fault::point!("image.staged");
        let mut left = Limits { entries: self.config.max_entries, bytes: self.config.max_unpacked_bytes };
        let mut layers = image.layers.iter();
        let mut next = match layers.next() {
            Some(layer) => Some((layer, self.blobs.fetch(layer).await?)),
            None => None,
        };
        while let Some((layer, blob)) = next.take() {
            let fetch_next = async {
                match layers.next() {
                    Some(layer) => Ok(Some((layer, self.blobs.fetch(layer).await?))),
                    None => Ok::<_, ImageError>(None),
                }
            };
            // Both to their end: the unpacker must not be at work when the caller removes the staging.
            hoody_fault::point!("image.fetched");
            let (tally, fetched) = tokio::join!(self.unpack(layer, blob, staged, left), fetch_next);
            left.bytes = left.bytes.saturating_sub(tally?.bytes);
            next = fetched?;
        }
        Ok(())
    }

    async fn unpack(
        &self,
        layer: &Layer,
        blob: std::fs::File,
        staged: &Path,
        limits: Limits,
    ) -> Result<Tally, ImageError> {
        let deadline = self.config.unpack_deadline;
        let step = Step::new("unpack into", staged, deadline + KILL_GRACE);
        let (program, layer, staged) = (self.config.unpacker.clone(), layer.clone(), staged.to_owned());
        let work = move || {
            let tally = run::unpack(&program, &layer, blob, &staged, limits, deadline)?;
            tracing::debug!(layer = %layer.digest, ?tally, "layer unpacked");
            Ok(tally)
        };
        self.blocking.run(step, async { None }, work).await
    }

    async fn create_staged(&self, staged: &Path) -> Result<(), ImageError> {
        let step = Step::new("make staging", staged, LOOKUP_DEADLINE);
        let (parent, staged) = (self.staging.clone(), staged.to_owned());
        let work = move || {
            let name = staged.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            subvolume::open_folder(&parent)
                .and_then(|parent| ioctl::create_subvolume(parent.as_fd(), name))
                .map_err(ImageError::io("make subvolume", &staged))
        };
        self.blocking.run(step, async { None }, work).await
    }

    /// Moves the staged image into place, whole.
    async fn commit(&self, image: &ImageSpec, staged: &Path) -> Result<PathBuf, ImageError> {
        let (private, image) = (image.is_archive(), image.digest);
        let target = self.images.join(image.hex());
        let step = Step::new("commit", &target, COMMIT_DEADLINE);
        let (staged, handle, place) = (staged.to_owned(), self.handle.clone(), target.clone());
        let work = move || {
            // Something incomplete may be in the place.
            subvolume::delete(handle.as_fd(), &place).map_err(ImageError::io("delete", &place))?;
            let top = subvolume::open_folder(&staged).map_err(ImageError::io("open", &staged))?;
            // A commit alone keeps names and sizes of files whose data is still in memory.
            nix::unistd::syncfs(top.as_fd()).map_err(|e| ImageError::io("flush", &staged)(e.into()))?;
            if private {
                charge(handle.as_fd(), top.as_fd()).map_err(ImageError::io("charge", &staged))?;
            }
            fs::rename(&staged, &place).map_err(ImageError::io("rename", &staged))?;
            hoody_fault::point!("image.renamed");
            ioctl::set_read_only(top.as_fd(), true).map_err(ImageError::io("make read-only", &place))
        };
        self.blocking.run(step, async { None }, work).await?;
        self.used(image).await?;
        tracing::info!(%image, "image ready");
        Ok(target)
    }

    pub(super) async fn delete(&self, path: PathBuf) -> Result<(), ImageError> {
        let step = Step::new("delete", &path, CLEAN_DEADLINE);
        let handle = self.handle.clone();
        let work = move || subvolume::delete(handle.as_fd(), &path).map_err(ImageError::io("delete", &path));
        self.blocking.run(step, async { None }, work).await
    }

    /// Refuses an image for which there is no room, before anything is fetched.
    async fn check_space(&self, image: &ImageSpec, bytes: u64) -> Result<(), ImageError> {
        let mut missing = bytes;
        for layer in image.layers.iter() {
            missing = missing.saturating_sub(self.blobs.present(layer.digest).await);
        }
        let needed = bytes.saturating_mul(SPACE_FACTOR).saturating_add(self.config.reserve_bytes);
        let step = Step::new("measure", &self.config.pool, LOOKUP_DEADLINE);
        let places = [(self.config.pool.clone(), needed), (self.blobs.folder().to_owned(), missing)];
        let work = move || {
            for (path, needed) in places {
                let folder = subvolume::open_folder(&path).map_err(ImageError::io("open", &path))?;
                let usage = space(folder.as_fd(), &path)?;
                let available = usage.total_bytes - usage.used_bytes;
                if available < needed {
                    return Err(ImageError::NoSpace { path, available, needed });
                }
            }
            Ok(())
        };
        self.blocking.run(step, async { None }, work).await
    }
}

/// Makes the folders; deletes everything staged and every image that is not complete.
fn prepare(pool: PathBuf, folders: [PathBuf; 2]) -> Result<OwnedFd, ImageError> {
    let handle = subvolume::open_folder(&pool).map_err(ImageError::io("open", &pool))?;
    if !subvolume::is_btrfs(handle.as_fd()).map_err(ImageError::io("inspect", &pool))? {
        return Err(StorageError::NotBtrfs { path: pool }.into());
    }
    for folder in folders {
        make_folder(&folder)?;
        for entry in fs::read_dir(&folder).map_err(ImageError::io("list", &folder))? {
            let path = entry.map_err(ImageError::io("list", &folder))?.path();
            if folder.ends_with(STAGING) || !is_complete(&path)? {
                tracing::info!(path = %path.display(), "removing what a crash left");
                subvolume::delete(handle.as_fd(), &path).map_err(ImageError::io("delete", &path))?;
            }
        }
    }
    Ok(handle)
}

fn make_folder(folder: &Path) -> Result<(), ImageError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(ImageError::io("make folder", folder))
}

/// True where the path is a read-only subvolume.
fn is_complete(path: &Path) -> Result<bool, ImageError> {
    match subvolume::open(path).map_err(ImageError::io("open", path))? {
        Some(top) => ioctl::is_read_only(top.as_fd()).map_err(ImageError::io("inspect", path)),
        None => Ok(false),
    }
}
