//! Blobs on their way: fetched into the state folder, resumed where a transfer broke, verified before use,
//! and removed once nobody needs them.
//!
//! `<digest>.partial` is unverified; `<digest>` was verified when it was renamed, and is verified again when
//! it is found. A blob that several images share is fetched once at a time; the last [`Claim`] removes it.

use super::{BlobError, BlobSource, ImageError};
use crate::storage::blocking::Locks;
use hoody_protocol::image::{Digest, Layer};
use sha2::Digest as _;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
};

/// Bytes that have to come within one stall deadline, unless the blob ends before; also the size of writes.
const CHUNK_BYTES: usize = 256 << 10;
/// Leftovers of this age are removed.
const STALE_AGE: Duration = Duration::from_secs(24 * 3600);
const PARTIAL_SUFFIX: &str = ".partial";

/// The blobs folder.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    source: Arc<dyn BlobSource>,
    stall: Duration,
    fetches: Locks<Digest>,
    claims: Mutex<HashMap<Digest, Claims>>,
}

#[derive(Debug, Default)]
struct Claims {
    holders: usize,
    used_up: bool,
}

impl Blobs {
    /// Opens the folder and removes old leftovers.
    pub(crate) async fn open(
        folder: PathBuf,
        source: Arc<dyn BlobSource>,
        stall: Duration,
    ) -> Result<Self, ImageError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .await
            .map_err(ImageError::io("make folder", &folder))?;
        let blobs = Self { folder, source, stall, fetches: Locks::default(), claims: Mutex::default() };
        blobs.remove_stale().await?;
        Ok(blobs)
    }

    /// Removes what no transfer has touched for long: images that nobody wants any more.
    pub(crate) async fn remove_stale(&self) -> Result<(), ImageError> {
        remove_stale(&self.folder).await.map_err(ImageError::io("clean", &self.folder))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says that the blob is needed until the claim is dropped.
    pub(crate) fn claim(self: &Arc<Self>, digest: Digest) -> Claim {
        self.lock_claims().entry(digest).or_default().holders += 1;
        Claim { blobs: self.clone(), digest, used_up: false }
    }

    /// Bytes of the layer that are here already.
    pub(crate) async fn present(&self, digest: Digest) -> u64 {
        for path in [self.complete(digest), self.partial(digest)] {
            if let Ok(found) = fs::metadata(path).await {
                return found.len();
            }
        }
        0
    }

    /// The verified blob, open at its beginning.
    pub(crate) async fn fetch(&self, layer: &Layer) -> Result<std::fs::File, ImageError> {
        let digest = layer.digest;
        let _fetching = self.fetches.lock(digest).await;
        let (partial, complete) = (self.partial(digest), self.complete(digest));
        if fs::try_exists(&complete).await.map_err(ImageError::io("look up", &complete))? {
            // Verified anew like everything else that is found.
            fs::rename(&complete, &partial).await.map_err(ImageError::io("rename", &complete))?;
        }
        let mut file = open(&partial).await?;
        let mut hasher = sha2::Sha256::new();
        let mut have = hash(&mut file, &mut hasher).await.map_err(ImageError::io("read", &partial))?;
        if have < layer.size {
            have = self.receive(layer, have, &mut file, &mut hasher, &partial).await?;
        }
        if have > layer.size {
            remove(&partial).await?;
            return Err(ImageError::Overlong { digest, expected: layer.size });
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != digest {
            remove(&partial).await?;
            return Err(ImageError::DigestMismatch { digest, found });
        }
        fs::rename(&partial, &complete).await.map_err(ImageError::io("rename", &partial))?;
        tokio::io::AsyncSeekExt::rewind(&mut file).await.map_err(ImageError::io("rewind", &complete))?;
        Ok(file.into_std().await)
    }

    /// Receives from byte `have` on; returns the bytes there are then, more than announced included.
    async fn receive(
        &self,
        layer: &Layer,
        mut have: u64,
        file: &mut File,
        hasher: &mut sha2::Sha256,
        path: &Path,
    ) -> Result<u64, ImageError> {
        let digest = layer.digest;
        let stalled = |offset| ImageError::Stalled { digest, offset };
        let failed = |source| ImageError::Blob { digest, source };
        let opening = tokio::time::timeout(self.stall, self.source.open(digest, have));
        let mut reader = opening.await.map_err(|_| stalled(have))?.map_err(failed)?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            // One byte too many is enough to know that the blob is too long.
            let wanted = (layer.size - have).saturating_add(1).min(CHUNK_BYTES as u64);
            let came = tokio::time::timeout(self.stall, fill(&mut reader, &mut chunk, wanted)).await;
            // What has arrived is kept even where the transfer broke behind it.
            file.write_all(&chunk).await.map_err(ImageError::io("write", path))?;
            hasher.update(&chunk);
            have += chunk.len() as u64;
            let came = came.map(|read| read.map_err(|source| failed(BlobError::Transfer { digest, source })));
            let ended = match came {
                Ok(Ok(())) => (chunk.len() as u64) < wanted,
                _ => false,
            };
            if ended || have > layer.size || !matches!(came, Ok(Ok(()))) {
                file.flush().await.map_err(ImageError::io("write", path))?;
            }
            came.map_err(|_| stalled(have))??;
            if have > layer.size {
                return Ok(have);
            }
            if ended {
                break;
            }
        }
        if have < layer.size {
            return Err(ImageError::Truncated { digest, got: have, expected: layer.size });
        }
        Ok(have)
    }

    fn complete(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    fn partial(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex() + PARTIAL_SUFFIX)
    }

    fn lock_claims(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Claims>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One image's need of a blob.
#[derive(Debug)]
pub(crate) struct Claim {
    blobs: Arc<Blobs>,
    digest: Digest,
    used_up: bool,
}

impl Claim {
    /// Says that this image will not need the blob again: it is unpacked, or will never be.
    pub(crate) fn use_up(mut self) {
        self.used_up = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.blobs.lock_claims();
        let Some(entry) = claims.get_mut(&self.digest) else { return };
        entry.holders -= 1;
        entry.used_up |= self.used_up;
        if entry.holders > 0 {
            return;
        }
        let used_up = entry.used_up;
        claims.remove(&self.digest);
        if used_up {
            let path = self.blobs.complete(self.digest);
            // Under the lock, so that nobody finds the blob between. A leftover goes when it is stale.
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "blob not removed");
            }
        }
    }
}

/// Reads until `wanted` bytes more are in `chunk` or the reader ends.
async fn fill(reader: &mut (impl AsyncRead + Unpin), chunk: &mut Vec<u8>, wanted: u64) -> std::io::Result<()> {
    let mut bounded = reader.take(wanted);
    while bounded.read_buf(chunk).await? > 0 {}
    Ok(())
}

async fn open(path: &Path) -> Result<File, ImageError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).await.map_err(ImageError::io("open", path))
}

async fn hash(file: &mut File, hasher: &mut sha2::Sha256) -> std::io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut chunk).await? {
            0 => return Ok(bytes),
            n => {
                hasher.update(&chunk[..n]);
                bytes += n as u64;
            }
        }
    }
}

async fn remove(path: &Path) -> Result<(), ImageError> {
    fs::remove_file(path).await.map_err(ImageError::io("remove", path))
}

async fn remove_stale(folder: &Path) -> std::io::Result<()> {
    let now = SystemTime::now();
    let mut entries = fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let Ok(found) = entry.metadata().await else { continue };
        if now.duration_since(found.modified()?).is_ok_and(|age| age > STALE_AGE) {
            match fs::remove_file(entry.path()).await {
                // Somebody else was faster.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}
