//! A layer on its way: `<data>/blobs/.pulling-<digest>`, which a broken transfer leaves and the next one goes on
//! with. One process writes it at a time; what is in it is hashed, also what was there before. Verified it gets the
//! name `.pulled-<digest>`.

use super::{error::PullError, room, traces::Traces};
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
    sync::Arc,
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
    /// After the file, which is locked: what is to be forgotten is removed when it is not any more.
    _traces: Option<Arc<Traces>>,
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> PullError {
    move |source| PullError::Io(action, source)
}

impl Partial {
    /// Opens or makes the file and reads what is there. [`PullError::Busy`] where somebody else writes it.
    pub(super) fn open(traces: Arc<Traces>, holder: &str, digest: Digest, size: u64) -> Result<Self, PullError> {
        blobs::make_folder(traces.data_dir())?;
        let data_dir = traces.data_dir().to_owned();
        let mut partial = Self::locked(&data_dir, holder, digest, size, Some(traces))?;
        partial.resume()?;
        Ok(partial)
    }

    /// Removes the file, but for one that somebody writes.
    pub(super) fn remove_unused(data_dir: &Path, holder: &str, digest: Digest) {
        if let Ok(partial) = Self::locked(data_dir, holder, digest, 0, None) {
            partial.remove();
        }
    }

    fn locked(
        data_dir: &Path,
        holder: &str,
        digest: Digest,
        size: u64,
        traces: Option<Arc<Traces>>,
    ) -> Result<Self, PullError> {
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
        Ok(Self { path, target, file, hasher: sha2::Sha256::new(), digest, size, written: 0, _traces: traces })
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

    /// Writes what comes until the sender is gone; an error where it is more than there should be, or `room` does not have
    /// what is missing.
    pub(super) fn append(
        &mut self,
        mut chunks: Receiver<Bytes>,
        room: impl Fn(u64) -> Result<(), PullError>,
    ) -> Result<(), PullError> {
        let mut looked = self.written;
        while let Some(chunk) = chunks.blocking_recv() {
            if self.written + chunk.len() as u64 > self.size {
                return Err(PullError::TooLong { digest: self.digest, announced: self.size });
            }
            let missing = self.size - self.written;
            if self.written - looked >= room::LOOK_BYTES {
                looked = self.written;
                room(missing)?;
            }
            self.file.write_all(&chunk).map_err(|error| room::written(error, missing))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::sync::mpsc;

    const CHUNK_BYTES: u64 = 8 << 20;

    #[test]
    fn room_is_looked_for_as_a_layer_grows() {
        let data = tempfile::tempdir().unwrap();
        let size = 10 * CHUNK_BYTES;
        let mut partial = Partial::open(Traces::new(data.path()), "", Digest::of(b""), size).unwrap();
        let (sender, chunks) = mpsc::channel(16);
        for _ in 0..9 {
            sender.try_send(Bytes::from(vec![0; CHUNK_BYTES as usize])).unwrap();
        }
        drop(sender);
        // Others fill the disk meanwhile.
        let asked = RefCell::new(Vec::new());
        let room = |missing| {
            asked.borrow_mut().push(missing);
            if asked.borrow().len() < 3 { Ok(()) } else { Err(PullError::Room { needed: 1 }) }
        };
        let refused = partial.append(chunks, room);
        assert!(matches!(refused, Err(PullError::Room { needed: 1 })), "{refused:?}");
        assert_eq!(asked.into_inner(), [8, 6, 4].map(|left| left * CHUNK_BYTES));
        assert_eq!(partial.written(), 6 * CHUNK_BYTES);
    }

    #[test]
    fn a_full_disk_is_no_room() {
        let full = room::written(io::ErrorKind::StorageFull.into(), 5);
        assert_eq!(full.cause().code.as_str(), "image_no_room");
    }
}
