//! The folder of image blobs, `<data>/blobs/<64 hexadecimal characters of the SHA-256>`.
//!
//! A blob appears there by rename, after it was verified and is on disk: whoever finds the file may
//! serve it. Whoever adds or removes blobs holds the folder's lock from before the first blob until
//! the catalogue says what it should, so that an import and a collection never meet.

use hoody_protocol::image::Digest;
use sha2::Digest as _;
use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long an import waits for another one.
pub const LOCK_DEADLINE: Duration = Duration::from_secs(600);
/// Pause between two tries to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Name of the lock file.
const LOCK_FILE: &str = ".lock";
/// Names of what is not a blob yet begin so.
const INCOMING: &str = ".incoming-";
/// Names of layers on their way from a registry begin so; they stay where a transfer breaks off.
const PULLING: &str = ".pulling-";
/// Names of layers that came from a registry and are verified, but not yet blobs, begin so.
const PULLED: &str = ".pulled-";
/// Names of uploads begin so.
const UPLOAD: &str = ".upload-";
/// How long such a file stays that nobody goes on with.
const PULLING_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Why the blob folder could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A file or folder operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else holds the lock.
    #[error("another import or collection is using {}", .0.display())]
    Busy(PathBuf),
    /// The source ended early, went on too long, or could not be read.
    #[error("read blob")]
    Read(#[source] io::Error),
    /// The source has more bytes than allowed or announced.
    #[error("blob is larger than {0} bytes")]
    TooLarge(u64),
    /// The bytes are not those that were announced.
    #[error("blob {expected} is not what it says: found {found} with {size} bytes")]
    Mismatch {
        /// The digest announced.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
        /// Bytes found.
        size: u64,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    move |source| BlobError::Io { action, path: path.to_owned(), source }
}

/// Where the blob with this digest is, if it is there.
pub fn blob_path(data_dir: &Path, digest: Digest) -> PathBuf {
    data_dir.join("blobs").join(digest.hex())
}

/// Where a layer is kept while it is being fetched from a registry; `holder` begins the names of one who fetches.
pub(super) fn partial_path(data_dir: &Path, holder: &str, digest: Digest) -> PathBuf {
    data_dir.join("blobs").join(format!("{PULLING}{holder}{}", digest.hex()))
}

/// Where a layer is kept that was fetched and verified, until the whole image is there.
pub(super) fn pulled_path(data_dir: &Path, holder: &str, digest: Digest) -> PathBuf {
    data_dir.join("blobs").join(format!("{PULLED}{holder}{}", digest.hex()))
}

/// Makes the folder where it is missing.
pub(super) fn make_folder(data_dir: &Path) -> Result<PathBuf, BlobError> {
    let path = data_dir.join("blobs");
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(io("create", &path))?;
    Ok(path)
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Files.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The folder, locked against everybody else who changes it.
#[derive(Debug)]
pub struct BlobFolder {
    path: PathBuf,
    _lock: File,
}

impl BlobFolder {
    /// Takes the lock, waiting up to `patience`, and removes what a crash left half-written.
    pub fn lock(data_dir: &Path, patience: Duration) -> Result<Self, BlobError> {
        let path = make_folder(data_dir)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        let deadline = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(BlobError::Busy(path)),
                Err(TryLockError::Error(error)) => return Err(io("lock", &lock_path)(error)),
            }
        }
        let folder = Self { path, _lock: lock };
        folder.sweep()?;
        Ok(folder)
    }

    /// A new empty folder beside the blobs, for unpacking an archive; goes with the returned guard.
    pub(super) fn scratch(&self) -> Result<Scratch, BlobError> {
        let path = self.incoming();
        DirBuilder::new().mode(0o700).create(&path).map_err(io("create", &path))?;
        Ok(Scratch { path })
    }

    /// Stores the bytes of `source`, at most `max` of them; gives their digest and number. Where
    /// `expected` is given, other bytes are refused and leave nothing.
    pub(super) fn add(
        &self,
        mut source: impl Read,
        max: u64,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), BlobError> {
        let temporary = Scratch { path: self.incoming() };
        let path = &temporary.path;
        let mut file =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(io("create", path))?;
        let (found, size) = copy_hashed(&mut source, &mut file, max, path)?;
        if let Some(expected) = expected
            && expected != found
        {
            return Err(BlobError::Mismatch { expected, found, size });
        }
        file.sync_all().map_err(io("sync", path))?;
        let target = self.path.join(found.hex());
        fs::rename(path, &target).map_err(io("rename to", &target))?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(io("sync", &self.path))?;
        Ok((found, size))
    }

    /// Makes a blob of a layer that `holder` fetched, which is verified and on disk; false where there is neither layer
    /// nor blob of this size.
    pub(in crate::service) fn adopt(&self, holder: &str, digest: Digest, size: u64) -> Result<bool, BlobError> {
        let target = self.path.join(digest.hex());
        let pulled = self.path.join(format!("{PULLED}{holder}{}", digest.hex()));
        let has_size = |path: &Path| path.metadata().is_ok_and(|found| found.len() == size);
        if has_size(&target) {
            remove(&pulled)?;
            return Ok(true);
        }
        if !has_size(&pulled) {
            return Ok(false);
        }
        fs::rename(&pulled, &target).map_err(io("rename to", &target))?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(io("sync", &self.path))?;
        Ok(true)
    }

    /// Makes a blob of an upload, which is on disk and has this digest and size.
    pub(crate) fn take(&self, upload: Upload, digest: Digest, size: u64) -> Result<(), BlobError> {
        let target = self.path.join(digest.hex());
        if !target.metadata().is_ok_and(|found| found.len() == size) {
            fs::rename(upload.path(), &target).map_err(io("rename to", &target))?;
            File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(io("sync", &self.path))?;
        }
        Ok(())
    }

    /// Removes every blob that is not in `referenced`, and what a day ago was left of transfers.
    pub fn collect(&self, referenced: &HashSet<Digest>) -> Result<Collected, BlobError> {
        let mut collected = Collected::default();
        for (name, entry) in self.entries()? {
            if name.starts_with(PULLING) || name.starts_with(PULLED) {
                let path = entry.path();
                let modified = path.metadata().and_then(|found| found.modified());
                let abandoned = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= PULLING_KEPT));
                if abandoned {
                    remove(&path)?;
                }
                continue;
            }
            // What does not have a blob's name is not ours to remove.
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
            if referenced.contains(&digest) {
                continue;
            }
            let path = entry.path();
            let size = entry.metadata().map_err(io("read", &path))?.len();
            remove(&path)?;
            collected.blobs += 1;
            collected.bytes += size;
        }
        Ok(collected)
    }

    fn incoming(&self) -> PathBuf {
        self.path.join(format!("{INCOMING}{:016x}", rand::random::<u64>()))
    }

    /// Under the lock, whatever is incoming is nobody's; an upload is somebody's as long as its own lock is held.
    fn sweep(&self) -> Result<(), BlobError> {
        for (name, entry) in self.entries()? {
            let abandoned = if name.starts_with(UPLOAD) { lock_abandoned(&entry.path())? } else { None };
            if name.starts_with(INCOMING) || abandoned.is_some() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(String, fs::DirEntry)>, BlobError> {
        let read = fs::read_dir(&self.path).map_err(io("list", &self.path))?;
        let entries: Vec<fs::DirEntry> = read.collect::<io::Result<_>>().map_err(io("list", &self.path))?;
        Ok(entries.into_iter().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry)).collect())
    }
}

/// A temporary file or folder that goes when it is dropped, unless it was renamed.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is swept by the next holder of the lock.
        let _ = remove(&self.path);
    }
}

/// An upload that is not a blob yet, a file for its owner alone. It goes when it is dropped; what a process leaves that
/// dies goes when the folder is locked next, by whomever: its lock went with the process.
#[derive(Debug)]
pub(crate) struct Upload {
    file: Scratch,
    lock: File,
}

/// Makes an empty one.
pub(crate) fn upload(data_dir: &Path) -> Result<Upload, BlobError> {
    let folder = make_folder(data_dir)?;
    loop {
        let path = folder.join(format!("{UPLOAD}{:016x}", rand::random::<u64>()));
        let file =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).map_err(io("create", &path))?;
        let upload = Upload { file: Scratch { path }, lock: file };
        // Whoever sweeps may have seen it before it was locked: then there is another one.
        if upload.lock.try_lock().is_ok() && upload.path().exists() {
            return Ok(upload);
        }
    }
}

/// The upload, locked, where no process holds it.
fn lock_abandoned(path: &Path) -> Result<Option<File>, BlobError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io("open", path))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(io("lock", path)(error)),
    }
}

impl Upload {
    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }
}

fn remove(path: &Path) -> Result<(), BlobError> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn copy_hashed(source: &mut impl Read, target: &mut File, max: u64, path: &Path) -> Result<(Digest, u64), BlobError> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut size = 0u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(BlobError::Read(error)),
        };
        size += read as u64;
        if size > max {
            return Err(BlobError::TooLarge(max));
        }
        hasher.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(io("write", path))?;
    }
    Ok((Digest::from_bytes(hasher.finalize().into()), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, BlobFolder) {
        let data = tempfile::tempdir().unwrap();
        let folder = BlobFolder::lock(data.path(), Duration::ZERO).unwrap();
        (data, folder)
    }

    fn names(data: &Path) -> Vec<String> {
        let entries = fs::read_dir(data.join("blobs")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n != LOCK_FILE).collect()
    }

    #[test]
    fn a_blob_is_stored_under_its_digest() {
        let (data, folder) = folder();
        let digest = Digest::of(b"layer");
        assert_eq!(folder.add(&b"layer"[..], 5, Some(digest)).unwrap(), (digest, 5));
        assert_eq!(fs::read(blob_path(data.path(), digest)).unwrap(), b"layer");
        assert_eq!(names(data.path()), [digest.hex()]);
    }

    #[test]
    fn other_bytes_than_announced_and_too_many_leave_nothing() {
        let (data, folder) = folder();
        let refused = folder.add(&b"layer"[..], 5, Some(Digest::of(b"other")));
        assert!(matches!(refused, Err(BlobError::Mismatch { size: 5, .. })), "{refused:?}");
        assert!(matches!(folder.add(&b"layer"[..], 4, None), Err(BlobError::TooLarge(4))));
        assert!(names(data.path()).is_empty());
    }

    #[test]
    fn a_damaged_blob_is_healed_by_importing_it_again() {
        let (data, folder) = folder();
        let digest = Digest::of(b"layer");
        fs::write(blob_path(data.path(), digest), b"damaged").unwrap();
        folder.add(&b"layer"[..], 5, Some(digest)).unwrap();
        assert_eq!(fs::read(blob_path(data.path(), digest)).unwrap(), b"layer");
    }

    #[test]
    fn collection_removes_only_blobs_that_nobody_names() {
        let (data, folder) = folder();
        let (kept, _) = folder.add(&b"kept"[..], 9, None).unwrap();
        folder.add(&b"gone"[..], 9, None).unwrap();
        fs::write(data.path().join("blobs/README"), "not a blob").unwrap();
        let collected = folder.collect(&HashSet::from([kept])).unwrap();
        assert_eq!(collected, Collected { blobs: 1, bytes: 4 });
        let left: HashSet<String> = names(data.path()).into_iter().collect();
        assert_eq!(left, HashSet::from(["README".to_owned(), kept.hex()]));
    }

    #[test]
    fn one_holder_at_a_time_and_leftovers_are_swept() {
        let (data, folder) = folder();
        assert!(matches!(BlobFolder::lock(data.path(), Duration::ZERO), Err(BlobError::Busy(_))));
        fs::write(data.path().join("blobs/.incoming-0"), "half").unwrap();
        fs::create_dir_all(data.path().join("blobs/.incoming-1/blobs")).unwrap();
        drop(folder);
        BlobFolder::lock(data.path(), Duration::ZERO).unwrap();
        assert!(names(data.path()).is_empty());
    }

    #[test]
    fn an_upload_stays_as_long_as_somebody_holds_it_and_what_a_crash_left_goes() {
        let (data, folder) = folder();
        drop(folder);
        let held = upload(data.path()).unwrap();
        fs::write(held.path(), "half").unwrap();
        fs::write(data.path().join("blobs/.upload-0"), "of a process that was killed").unwrap();
        let folder = BlobFolder::lock(data.path(), Duration::ZERO).unwrap();
        assert_eq!(names(data.path()), [held.path().file_name().unwrap().to_str().unwrap()]);
        folder.take(held, Digest::of(b"half"), 4).unwrap();
        assert_eq!(names(data.path()), [Digest::of(b"half").hex()]);
        // The same once more: nothing of it stays.
        let again = upload(data.path()).unwrap();
        fs::write(again.path(), "half").unwrap();
        folder.take(again, Digest::of(b"half"), 4).unwrap();
        assert_eq!(names(data.path()), [Digest::of(b"half").hex()]);
        let dropped = upload(data.path()).unwrap();
        drop(dropped);
        assert_eq!(names(data.path()).len(), 1);
    }
}
