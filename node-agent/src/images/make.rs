//! Making an image: one tree after the other, each from the one before it by unpacking the layers between.
//!
//! A tree is unpacked in staging, flushed, moved into place and only then made read-only. Each that is done stays, so a
//! making that is cut off goes on behind the last one, and another image with the same beginning starts from it. Two
//! images that want one tree at a time make it one after the other: who comes second finds it.

use super::{
    ImageError,
    blobs::Claim,
    chain::{self, Tree},
    room::Promise,
    store::{COMMIT_DEADLINE, LOOKUP_DEADLINE, Store},
    unpack::{Limits, Refusal, Tally, run},
};
use crate::storage::{blocking::Step, charge, ioctl, space, subvolume};
use hoody_protocol::image::{Digest, ImageSpec, Layer, MAX_LAYER_BYTES};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};
use xattr::FileExt;

/// Room that an image may need, as a multiple of its compressed size.
const SPACE_FACTOR: u64 = 3;
/// What the thread that waits for the unpacker has beyond the unpacker's own deadline.
const KILL_GRACE: Duration = Duration::from_secs(30);
/// A snapshot waits for the commit of a transaction that others write into.
const STAGE_DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of all files that were unpacked into a tree, decimal. Only the node's root reads or writes it.
const UNPACKED: &str = "trusted.hoody.unpacked_bytes";

/// The layers of an image as they are fetched: the next one while one is unpacked.
struct Fetching<'a> {
    store: &'a Store,
    layers: &'a [Layer],
    ahead: Option<(usize, Result<File, ImageError>)>,
}

impl Fetching<'_> {
    async fn take(&mut self, at: usize) -> Result<File, ImageError> {
        match self.ahead.take() {
            Some((found, blob)) if found == at => blob,
            _ => self.store.blobs.fetch(&self.layers[at]).await,
        }
    }

    async fn fetch_ahead(&mut self, at: usize) {
        if let Some(layer) = self.layers.get(at) {
            self.ahead = Some((at, self.store.blobs.fetch(layer).await));
        }
    }
}

impl Store {
    /// Makes what is missing of the image.
    pub(super) async fn make(&self, image: &ImageSpec) -> Result<PathBuf, ImageError> {
        let trees = chain::trees(&image.layers);
        let mut below = None;
        let mut missing = 0;
        for (at, tree) in trees.iter().enumerate().rev() {
            below = self.find(tree.chain).await?;
            if below.is_some() {
                self.used(tree.chain).await?;
                missing = at + 1;
                break;
            }
        }
        let trees = &trees[missing..];
        if let Some(first) = trees.first() {
            self.check(image, &image.layers[first.layers.start..]).await?;
        }
        let mut fetching = Fetching { store: self, layers: &image.layers, ahead: None };
        let claim = |tree: &Tree| {
            image.layers[tree.layers.clone()].iter().map(|layer| self.blobs.claim(layer.digest)).collect::<Vec<_>>()
        };
        let mut claims: Vec<Vec<Claim>> = trees.iter().map(claim).collect();
        for tree in trees {
            let made = self.tree(tree, below.as_deref(), &mut fetching).await;
            let used_up = match &made {
                Ok(_) => 1,
                Err(error) if error.is_retryable() => 0,
                Err(_) => claims.len(),
            };
            claims.drain(..used_up).flatten().for_each(Claim::use_up);
            below = Some(made?);
        }
        tracing::info!(image = %image.digest, "image ready");
        below.ok_or(ImageError::CutOff { image: image.digest })
    }

    /// Makes one tree, unless it was made meanwhile.
    async fn tree(
        &self,
        tree: &Tree,
        below: Option<&Path>,
        fetching: &mut Fetching<'_>,
    ) -> Result<PathBuf, ImageError> {
        let _making = self.making.lock(tree.chain).await;
        if let Some(path) = self.find(tree.chain).await? {
            return Ok(path);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let staged = self.staging.join(format!("{}-{number}", tree.chain.hex()));
        let made = match self.fill(tree, below, &staged, fetching).await {
            // Promised until what was written is counted as taken.
            Ok(_promise) => {
                hoody_fault::point!("image.unpacked");
                let layers = &fetching.layers[tree.layers.clone()];
                self.commit(tree.chain, &staged, layers.iter().any(|layer| layer.archive_bytes.is_some())).await
            }
            Err(error) => Err(error),
        };
        if made.is_err()
            && let Err(error) = self.delete(staged).await
        {
            tracing::warn!(tree = %tree.chain, error = &error as &dyn std::error::Error, "staged tree left");
        }
        made
    }

    /// Makes the staging subvolume and unpacks every layer into it.
    async fn fill(
        &self,
        tree: &Tree,
        below: Option<&Path>,
        staged: &Path,
        fetching: &mut Fetching<'_>,
    ) -> Result<Promise, ImageError> {
        let mut unpacked = self.stage(below, staged).await?;
        hoody_fault::point!("image.staged");
        let promise = self.promise(tree.chain, &fetching.layers[tree.layers.clone()]).await?;
        let mut left = promise.bytes;
        for at in tree.layers.clone() {
            let blob = fetching.take(at).await?;
            hoody_fault::point!("image.fetched");
            let layer = &fetching.layers[at];
            let allowed = self.config.max_unpacked_bytes.saturating_sub(unpacked);
            let limits = Limits { entries: self.config.max_entries, bytes: allowed.min(left), file_bytes: allowed };
            // Both to their end: the unpacker must not be at work when the staging is removed.
            let (tally, ()) = tokio::join!(self.unpack(layer, blob, staged, limits), fetching.fetch_ahead(at + 1));
            let tally = match tally {
                Err(ImageError::LayerRefused { refusal: Refusal::TooManyBytes, .. }) if left < allowed => {
                    self.room.outgrown(tree.chain, promise.bytes);
                    return Err(self.no_room(promise.bytes).await);
                }
                tally => tally?,
            };
            unpacked = unpacked.saturating_add(tally.bytes);
            left = left.saturating_sub(tally.bytes);
        }
        self.room.forget(tree.chain);
        let (path, text) = (staged.to_owned(), unpacked.to_string());
        self.quick("count", staged, move || File::open(path)?.set_xattr(UNPACKED, text.as_bytes())).await?;
        Ok(promise)
    }

    async fn unpack(&self, layer: &Layer, blob: File, staged: &Path, limits: Limits) -> Result<Tally, ImageError> {
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

    /// Makes the staging subvolume, empty or as the tree `below` is; gives the bytes that were unpacked into that.
    async fn stage(&self, below: Option<&Path>, staged: &Path) -> Result<u64, ImageError> {
        let (parent, below, path) = (self.staging.clone(), below.map(Path::to_owned), staged.to_owned());
        let work = move || {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let parent = subvolume::open_folder(&parent)?;
            let Some(below) = below else {
                return ioctl::create_subvolume(parent.as_fd(), name).map(|()| 0);
            };
            let below = subvolume::open_folder(&below)?;
            ioctl::writable_snapshot(below.as_fd(), parent.as_fd(), name)?;
            unpacked(below)
        };
        let (step, staged) = (Step::new("make subvolume", staged, STAGE_DEADLINE), staged.to_owned());
        let work = move || work().map_err(ImageError::io("make subvolume", &staged));
        self.blocking.run(step, async { None }, work).await
    }

    /// Moves the staged tree into place, whole. A `private` one is its container's: it counts towards its disk limit.
    async fn commit(&self, chain: Digest, staged: &Path, private: bool) -> Result<PathBuf, ImageError> {
        let target = self.trees.join(chain.hex());
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
        self.used(chain).await?;
        Ok(target)
    }

    /// Refuses an image that is too large, or for which there is no room, before anything is fetched.
    async fn check(&self, image: &ImageSpec, missing: &[Layer]) -> Result<(), ImageError> {
        let (bytes, limit) = (compressed(&image.layers), self.config.max_compressed_bytes);
        if bytes > limit || image.layers.iter().any(|layer| layer.size > MAX_LAYER_BYTES) {
            return Err(ImageError::TooLarge { image: image.digest, bytes, limit });
        }
        self.blobs.remove_stale().await?;
        let checked = self.check_space(missing, compressed(missing)).await;
        if matches!(checked, Err(ImageError::NoSpace { .. })) {
            self.is_short();
        }
        checked
    }

    /// Has unused trees collected.
    fn is_short(&self) {
        self.short.store(true, Ordering::Relaxed);
        self.shortage.notify_one();
    }

    /// Bytes of the pool beyond its reserve.
    async fn free(&self) -> Result<u64, ImageError> {
        let step = Step::new("measure", &self.config.pool, LOOKUP_DEADLINE);
        let (handle, pool, reserve) = (self.handle.clone(), self.config.pool.clone(), self.config.reserve_bytes);
        let work = move || {
            let usage = space(handle.as_fd(), &pool)?;
            Ok::<_, ImageError>((usage.total_bytes - usage.used_bytes).saturating_sub(reserve))
        };
        self.blocking.run(step, async { None }, work).await
    }

    /// Room for the tree of these layers.
    async fn promise(&self, tree: Digest, layers: &[Layer]) -> Result<Promise, ImageError> {
        match self.room.promise(tree, self.free().await?, expected(layers)) {
            Ok(promise) => Ok(promise),
            Err(needed) => Err(self.no_room(needed).await),
        }
    }

    /// There is no room for so many bytes of a tree.
    async fn no_room(&self, bytes: u64) -> ImageError {
        self.is_short();
        let (path, reserve) = (self.config.pool.clone(), self.config.reserve_bytes);
        match self.free().await {
            Ok(free) => {
                let [available, needed] = [free, bytes].map(|bytes| bytes.saturating_add(reserve));
                ImageError::NoSpace { path, available, needed }
            }
            Err(error) => error,
        }
    }

    async fn check_space(&self, layers: &[Layer], bytes: u64) -> Result<(), ImageError> {
        let mut missing = bytes;
        for layer in layers {
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

/// Bytes of the layers' blobs.
fn compressed(layers: &[Layer]) -> u64 {
    layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
}

/// Bytes that the layers are expected to come to: of an archive that is known, whatever it was compressed to.
fn expected(layers: &[Layer]) -> u64 {
    let one = |layer: &Layer| layer.archive_bytes.unwrap_or_else(|| layer.size.saturating_mul(SPACE_FACTOR));
    layers.iter().fold(0, |sum, layer| sum.saturating_add(one(layer)))
}

/// Bytes that were unpacked into a tree; nothing where that is not written down.
fn unpacked(tree: OwnedFd) -> io::Result<u64> {
    let value = File::from(tree).get_xattr(UNPACKED)?;
    let text = value.as_deref().map(String::from_utf8_lossy);
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoody_protocol::image::Compression;

    #[test]
    fn a_container_that_compressed_well_is_expected_at_its_whole_length() {
        let layer = Layer { digest: Digest::of(b""), size: 10, compression: Compression::Zstd, archive_bytes: None };
        let archive = Layer { archive_bytes: Some(1 << 30), ..layer.clone() };
        assert_eq!(expected(std::slice::from_ref(&layer)), 30);
        assert_eq!(expected(&[layer, archive]), 30 + (1 << 30));
    }
}
