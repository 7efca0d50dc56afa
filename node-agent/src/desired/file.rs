//! Checksummed files that are either the old or the new content after any crash: written beside,
//! synced, renamed, and the folder synced.

use super::DesiredError;
use hoody_protocol::image::Digest;
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

const HEADER: &str = "hoody-file-1 ";
const PRIVATE: u32 = 0o600;

/// Replaces `path` with `content`; durable on return.
pub fn write(path: &Path, content: &[u8]) -> Result<(), DesiredError> {
    replace(path, &close(content))?;
    sync_parent(path)
}

/// The bytes of a file with this content: what [`open`] opens.
pub(crate) fn close(content: &[u8]) -> Vec<u8> {
    let header = format!("{HEADER}{}\n", Digest::of(content));
    [header.as_bytes(), content].concat()
}

/// Replaces `path` with these bytes and nothing around them; durable after [`sync_parent`]. On failure the old
/// file stands. The new one is open for writing behind the bytes.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<File, DesiredError> {
    let failed = |action| move |source| DesiredError::Io { action, path: path.to_owned(), source };
    let beside = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE)
        .open(&beside)
        .map_err(failed("create beside"))?;
    let replaced =
        file.write_all(bytes).map_err(failed("write")).and_then(|()| file.sync_all().map_err(failed("sync"))).and_then(
            |()| {
                hoody_fault::point!("file.beside");
                fs::rename(&beside, path).map_err(failed("replace"))
            },
        );
    if replaced.is_err() {
        // A disk that is full needs the room. Left behind, it is written over by the next call.
        let _ = fs::remove_file(&beside);
    }
    replaced.map(|()| file)
}

/// Reads what [`write`] wrote; `None` where there is no file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, DesiredError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DesiredError::Io { action: "read", path: path.to_owned(), source }),
    };
    let damaged = |reason: &str| DesiredError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    open(bytes).map(Some).map_err(damaged)
}

/// The content of such a file, or what is wrong with it.
pub(crate) fn open(mut bytes: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no header")?;
    let content = bytes.split_off(end + 1);
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| "its header is not text")?;
    let expected = header.strip_prefix(HEADER).ok_or("its header is unknown")?;
    if Digest::of(&content).to_string() == expected { Ok(content) } else { Err("its checksum does not match") }
}

/// Removes `path`, durable on return; success where there is none.
pub fn remove(path: &Path) -> Result<(), DesiredError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(DesiredError::Io { action: "remove", path: path.to_owned(), source }),
    }
}

/// Makes what was renamed or removed at `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), DesiredError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|source| DesiredError::Io {
        action: "sync the folder",
        path: parent.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, b"one").unwrap();
        write(&path, b"two\nlines").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two\nlines");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"content").unwrap();
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[1..], b"", b"no header"] {
            fs::write(&path, damaged).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, DesiredError::Damaged { .. }));
            assert!(error.to_string().contains("a.json"), "{error}");
        }
    }
}
