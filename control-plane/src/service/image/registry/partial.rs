//! A layer on its way: `<data>/blobs/.pulling-<digest>`, which a broken transfer leaves and the next one goes on
//! with. One process writes it at a time; what is in it is hashed, also what was there before. Verified it gets the
//! name `.pulled-<digest>`.

use super::error::PullError;
use crate::service::image::{
    blobs::{self, BlobError},
    import::compression::sniff,
};
use bytes::Bytes;
use hoody_protocol::image::{Compression, Digest};
use sha2::Digest as _;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use tokio::sync::mpsc::Receiver;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// The open file of a layer.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    /// Its name when it is verified.
    target: PathBuf,
    file: File,
    hasher: sha2::Sha256,
    digest: Digest,
    /// Bytes that it must have in the end.
    size: u64,
    written: u64,
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> PullError {
    move |source| PullError::Io(action, source)
}

impl Partial {
    /// Opens or makes the file and reads what is there. [`PullError::Busy`] where somebody else writes it.
    pub(super) fn open(data_dir: &Path, holder: &str, digest: Digest, size: u64) -> Result<Self, PullError> {
        blobs::make_folder(data_dir)?;
        let path = blobs::partial_path(data_dir, holder, digest);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PullError::Busy(digest)),
            Err(TryLockError::Error(error)) => return Err(PullError::Io("lock", error)),
        }
        // Its last writer may have moved or removed it between our opening and locking it.
        let ours = file.metadata().map_err(failed("read"))?.ino();
        if !path.metadata().is_ok_and(|found| found.ino() == ours) {
            return Err(PullError::Busy(digest));
        }
        let target = blobs::pulled_path(data_dir, holder, digest);
        let mut partial = Self { path, target, file, hasher: sha2::Sha256::new(), digest, size, written: 0 };
        partial.resume()?;
        Ok(partial)
    }

    /// Bytes that are there.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    fn resume(&mut self) -> Result<(), PullError> {
        if self.file.metadata().map_err(failed("read"))?.len() > self.size {
            return self.clear();
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.file.read(&mut buffer).map_err(failed("read"))? {
                0 => return Ok(()),
                read => {
                    self.hasher.update(&buffer[..read]);
                    self.written += read as u64;
                }
            }
        }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) -> Result<(), PullError> {
        self.file.set_len(0).map_err(failed("cut"))?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed("cut"))?;
        self.hasher = sha2::Sha256::new();
        self.written = 0;
        Ok(())
    }

    /// Writes what comes until the sender is gone; an error where it is more than there should be.
    pub(super) fn append(&mut self, mut chunks: Receiver<Bytes>) -> Result<(), PullError> {
        while let Some(chunk) = chunks.blocking_recv() {
            if self.written + chunk.len() as u64 > self.size {
                return Err(PullError::TooLong { digest: self.digest, announced: self.size });
            }
            self.file.write_all(&chunk).map_err(failed("write"))?;
            self.hasher.update(&chunk);
            self.written += chunk.len() as u64;
            hoody_fault::point!("pull.received");
        }
        Ok(())
    }

    /// An error where it is not whole, not what its digest says, or not compressed as `compression`; otherwise it
    /// is on disk. What can never become right is removed.
    pub(super) fn finish(&mut self, compression: Compression) -> Result<(), PullError> {
        let (digest, size) = (self.digest, self.written);
        if size < self.size {
            return Err(PullError::BrokeOff { digest, announced: self.size, found: size });
        }
        let found = Digest::from_bytes(std::mem::take(&mut self.hasher).finalize().into());
        if found != digest {
            self.remove();
            return Err(BlobError::Mismatch { expected: digest, found, size }.into());
        }
        self.file.seek(SeekFrom::Start(0)).map_err(failed("read"))?;
        if sniff(&mut self.file).map_err(failed("read"))? != compression {
            self.remove();
            return Err(crate::service::image::import::ImportError::LayerContent { digest }.into());
        }
        self.file.sync_all().map_err(failed("sync"))?;
        std::fs::rename(&self.path, &self.target).map_err(failed("rename"))
    }

    /// Removes it; it is ours, since we hold its lock.
    pub(super) fn remove(&self) {
        // What stays is removed with the collection a day later.
        let _ = std::fs::remove_file(&self.path);
    }
}
