//! [`Images`] on a btrfs pool.
//!
//! Layout: `<pool>/images/<chain>` is a tree ([`super::chain`]), complete as soon as it is a read-only subvolume;
//! `<pool>/staging/<chain>-<number>` is one being made ([`super::make`]). A crash leaves either a whole tree or
//! something that is not read-only, which is deleted when the store is opened or the tree is wanted again.
//!
//! Trees of images that no container names are collected ([`super::collect`]).
//!
//! One task makes one image; callers that want the same one wait for it. The task goes on when its callers
//! give up: each of its steps has a deadline.

use super::{BlobSource, ImageError, Images, InUse, blobs::Blobs, chain, room::Room};
use crate::storage::{
    StorageError,
    blocking::{Blocking, Locks, Step},
    ioctl, subvolume,
};
use async_trait::async_trait;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use hoody_protocol::image::{Digest, ImageSpec, MAX_LAYER_BYTES};
use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};
use tokio::sync::{Notify, RwLock};

const IMAGES: &str = "images";
const STAGING: &str = "staging";
const MARKS: &str = "used";
pub(super) const LOOKUP_DEADLINE: Duration = Duration::from_secs(15);
/// Deleting leftovers of crashes, all of them.
const CLEAN_DEADLINE: Duration = Duration::from_secs(300);
/// Flushing an image of some gigabytes to a slow disk.
pub(super) const COMMIT_DEADLINE: Duration = Duration::from_secs(600);

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
    pub(super) trees: PathBuf,
    pub(super) staging: PathBuf,
    /// When which tree was last used.
    pub(super) marks: PathBuf,
    /// Held while an image is looked for by somebody who will use it; alone, while a tree is deleted.
    pub(super) finding: RwLock<()>,
    /// An image did not fit since the last collection.
    pub(super) short: AtomicBool,
    pub(super) shortage: Notify,
    /// Held by whoever makes a tree.
    pub(super) making: Locks<Digest>,
    pub(super) room: Arc<Room>,
    pub(super) handle: Arc<OwnedFd>,
    pub(super) blobs: Arc<Blobs>,
    pub(super) blocking: Blocking,
    pub(super) next: AtomicU64,
}

impl ImageStore {
    /// Opens the store: makes its folders and removes what crashes left behind.
    pub async fn open(config: ImageConfig, source: Arc<dyn BlobSource>) -> Result<Self, ImageError> {
        let blocking = Blocking::default();
        let [trees, staging, marks] = [IMAGES, STAGING, MARKS].map(|name| config.pool.join(name));
        let step = Step::new("open images of", &config.pool, CLEAN_DEADLINE);
        let (pool, folders) = (config.pool.clone(), [trees.clone(), staging.clone()]);
        let handle = blocking.run(step, async { None }, move || prepare(pool, folders)).await?;
        let blobs = Arc::new(Blobs::open(config.blobs.clone(), source, config.stall_deadline).await?);
        let next = AtomicU64::new(0);
        let keep_marks = marks.clone();
        let make = move || make_folder(&keep_marks);
        blocking.run(Step::new("make", &marks, LOOKUP_DEADLINE), async { None }, make).await?;
        let store = Store {
            config,
            trees,
            staging,
            marks,
            finding: RwLock::default(),
            short: AtomicBool::default(),
            shortage: Notify::new(),
            making: Locks::default(),
            room: Arc::default(),
            handle: Arc::new(handle),
            blobs,
            blocking,
            next,
        };
        Ok(Self { shared: Arc::new(store), works: Mutex::default() })
    }

    /// Deletes the last tree of an image; success where there is none. Containers made from it keep their files.
    pub async fn remove(&self, image: &ImageSpec) -> Result<(), ImageError> {
        self.shared.delete(self.shared.trees.join(chain::id(&image.layers).hex())).await
    }

    /// The work on an image, started where nobody is at it.
    fn work(&self, image: &ImageSpec) -> Work {
        let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        works.retain(|_, work| work.peek().is_none());
        works
            .entry(chain::id(&image.layers))
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
        let chain = chain::id(&image.layers);
        let found = {
            let _finding = self.shared.finding.read().await;
            let found = self.shared.find(chain).await?;
            if found.is_some() {
                self.shared.used(chain).await?;
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
    /// The tree, where it is complete.
    pub(super) async fn find(&self, chain: Digest) -> Result<Option<PathBuf>, ImageError> {
        let path = self.trees.join(chain.hex());
        let step = Step::new("look up tree", &path, LOOKUP_DEADLINE);
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

    pub(super) async fn delete(&self, path: PathBuf) -> Result<(), ImageError> {
        let step = Step::new("delete", &path, CLEAN_DEADLINE);
        let handle = self.handle.clone();
        let work = move || subvolume::delete(handle.as_fd(), &path).map_err(ImageError::io("delete", &path));
        self.blocking.run(step, async { None }, work).await
    }
}

/// Makes the folders; deletes everything staged and every tree that is not complete.
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
