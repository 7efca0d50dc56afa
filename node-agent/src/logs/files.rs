//! The files of one container's log:
//!
//! ```text
//! <id>.log         what conmon writes to
//! <id>.log.kept    another name of the same file, so that it is not lost when conmon replaces it
//! <id>.log.1       the part before it
//! ```

use super::{LogError, failed};
use hoody_protocol::id::ContainerId;
use std::{
    fs::{File, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Paths of one log.
#[derive(Debug, Clone)]
pub struct Files {
    current: PathBuf,
    kept: PathBuf,
    previous: PathBuf,
}

/// One part of a log, open: it stays what it is when the files get other names.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: File,
    /// When it was begun, nanoseconds since the Unix epoch. Where the file system does not know, a number that
    /// stands for the file.
    pub(super) id: u64,
}

impl Files {
    /// The files of a container's log in `folder`.
    pub fn new(folder: &Path, container: ContainerId) -> Self {
        let file = |kind: &str| folder.join(format!("{container}.log{kind}"));
        Self { current: file(""), kept: file(".kept"), previous: file(".1") }
    }

    /// Every path there may be.
    pub fn all(&self) -> [PathBuf; 3] {
        [self.previous.clone(), self.kept.clone(), self.current.clone()]
    }

    /// The parts that there are, oldest first.
    pub(super) fn open(&self) -> Result<Vec<Part>, LogError> {
        let mut parts: Vec<(u64, Part)> = Vec::new();
        // Newest first: a file that gets an older name meanwhile is met twice, and not missed.
        for path in self.all().iter().rev() {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("open", path)(error)),
            };
            let metadata = file.metadata().map_err(failed("stat", path))?;
            if metadata.is_file() && parts.iter().all(|(inode, _)| *inode != metadata.ino()) {
                parts.push((metadata.ino(), Part { id: identity(&metadata), file }));
            }
        }
        Ok(parts.into_iter().rev().map(|(_, part)| part).collect())
    }

    /// Makes sure that the current part is not lost when conmon replaces it, and that the part which it has replaced
    /// is the previous one.
    pub(super) fn keep(&self) -> Result<(), LogError> {
        let (current, kept) = (inode(&self.current)?, inode(&self.kept)?);
        if current == kept {
            return Ok(());
        }
        if kept.is_some() && current.is_some() {
            std::fs::rename(&self.kept, &self.previous).map_err(failed("rename", &self.kept))?;
        }
        if current.is_some() {
            match std::fs::hard_link(&self.current, &self.kept) {
                // Gone with its container.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result.map_err(failed("link", &self.kept))?,
            }
        }
        Ok(())
    }
}

fn identity(metadata: &Metadata) -> u64 {
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    born.and_then(|since| u64::try_from(since.as_nanos()).ok()).filter(|id| *id > 0).unwrap_or(metadata.ino())
}

fn inode(path: &Path) -> Result<Option<u64>, LogError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("stat", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn texts(files: &Files) -> Vec<String> {
        let read = |mut part: Part| {
            let mut text = String::new();
            part.file.read_to_string(&mut text).unwrap();
            text
        };
        files.open().unwrap().into_iter().map(read).collect()
    }

    #[test]
    fn what_was_replaced_becomes_the_previous_part() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), ContainerId::from_bytes([1; 12]));
        files.keep().unwrap();
        assert!(texts(&files).is_empty());
        let replace = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &files.current).unwrap();
        };
        replace("one");
        files.keep().unwrap();
        files.keep().unwrap();
        assert_eq!(texts(&files), ["one"]);
        replace("two");
        assert_eq!(texts(&files), ["one", "two"], "also before it is put in order");
        files.keep().unwrap();
        assert_eq!(texts(&files), ["one", "two"]);
        replace("three");
        files.keep().unwrap();
        assert_eq!(texts(&files), ["two", "three"]);
        for path in files.all() {
            std::fs::remove_file(path).unwrap();
        }
        files.keep().unwrap();
        assert!(texts(&files).is_empty());
    }
}
