//! Tar archives: tells a root file system from an OCI archive (a tar of a layout), checks that the
//! archive is whole, and unpacks the latter.

use super::{
    ImportError,
    compression::{decompress, sniff},
    documents::MAX_DOCUMENT_BYTES,
    layout::open_regular,
};
use hoody_protocol::image::{Compression, Digest, MAX_LAYER_BYTES};
use std::{
    cell::Cell,
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

/// Entries of an archive.
const MAX_ENTRIES: u64 = 4_000_000;
/// Bytes of an archive, not compressed; stops a decompression bomb.
const MAX_UNPACKED_BYTES: u64 = 256 << 30;

/// Bytes of headers, long names and extensions before one entry.
const MAX_HEADER_BYTES: u64 = 4 << 20;

/// What a tar archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A root file system.
    RootFs,
    /// An OCI image layout.
    Layout,
}

/// What [`inspect`] found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inspected {
    pub(super) content: Content,
    pub(super) compression: Compression,
}

/// Reads the archive to its end. A root file system must have entries, none of which leads out of it;
/// a layout is recognised by its `oci-layout` file at the top.
pub(super) fn inspect(path: &Path) -> Result<Inspected, ImportError> {
    let (compression, mut archive, allowance) = open(path)?;
    let broken = |source| ImportError::NotATar { path: path.to_owned(), source };
    let (mut entries, mut bytes) = (0u64, 0u64);
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        allowance.set(entry.size().saturating_add(MAX_HEADER_BYTES));
        let name = entry.path().map_err(broken)?;
        let name = inner_path(&name)?;
        if name == Path::new("oci-layout") && entry.header().entry_type().is_file() {
            return Ok(Inspected { content: Content::Layout, compression });
        }
        entries += 1;
        bytes = bytes.saturating_add(entry.size());
        if entries > MAX_ENTRIES {
            return Err(ImportError::Limit { what: "number of archive entries".to_owned(), max: MAX_ENTRIES });
        }
        if bytes > MAX_UNPACKED_BYTES {
            return Err(ImportError::Limit { what: "unpacked archive in bytes".to_owned(), max: MAX_UNPACKED_BYTES });
        }
    }
    if entries == 0 {
        return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is empty")));
    }
    // Reading on verifies the checksum of a compressed file, and bounds what follows the archive's end.
    allowance.set(MAX_UNPACKED_BYTES);
    let mut rest = archive.into_inner().take(MAX_UNPACKED_BYTES);
    io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
    Ok(Inspected { content: Content::RootFs, compression })
}

/// Unpacks a layout's files into `target`, which is empty. What does not belong to a layout is passed
/// over; links and special files are refused.
pub(super) fn unpack_layout(path: &Path, target: &Path) -> Result<(), ImportError> {
    let (_, mut archive, allowance) = open(path)?;
    let broken = |source| ImportError::NotATar { path: path.to_owned(), source };
    let blobs = target.join("blobs").join("sha256");
    DirBuilder::new().recursive(true).mode(0o700).create(&blobs).map_err(|source| ImportError::Io {
        action: "create",
        path: blobs.clone(),
        source,
    })?;
    let (mut entries, mut bytes) = (0u64, 0u64);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        allowance.set(entry.size().saturating_add(MAX_HEADER_BYTES));
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(ImportError::Limit { what: "number of archive entries".to_owned(), max: MAX_ENTRIES });
        }
        let name = inner_path(&entry.path().map_err(broken)?)?;
        let Some((inside, max)) = layout_file(&name) else { continue };
        if !entry.header().entry_type().is_file() {
            let problem = "it is not a regular file";
            return Err(ImportError::Entry { name: name.display().to_string(), problem });
        }
        bytes = bytes.saturating_add(entry.size());
        if entry.size() > max || bytes > MAX_UNPACKED_BYTES {
            return Err(ImportError::Limit { what: format!("archive entry {} in bytes", name.display()), max });
        }
        write_new(&mut entry, &target.join(inside))?;
    }
    Ok(())
}

/// The name that a layout's file gets, made of constants and a parsed digest, and its limit in bytes.
fn layout_file(name: &Path) -> Option<(PathBuf, u64)> {
    let name = name.to_str()?;
    if name == "oci-layout" || name == "index.json" {
        return Some((PathBuf::from(name), MAX_DOCUMENT_BYTES));
    }
    let digest: Digest = format!("sha256:{}", name.strip_prefix("blobs/sha256/")?).parse().ok()?;
    Some((Path::new("blobs/sha256").join(digest.hex()), MAX_LAYER_BYTES))
}

/// Writes a file that is not there yet; a second entry of a name takes the first one's place.
fn write_new(source: &mut impl Read, path: &Path) -> Result<(), ImportError> {
    let failed = |action| move |source| ImportError::Io { action, path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(error)),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed("create"))?;
    io::copy(source, &mut file).map_err(failed("unpack to"))?;
    file.flush().map_err(failed("write"))
}

/// The path without `.` and without a leading `/`; refuses `..`.
fn inner_path(name: &Path) -> Result<PathBuf, ImportError> {
    let mut inner = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => inner.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let problem = "it leads out of the archive";
                return Err(ImportError::Entry { name: name.display().to_string(), problem });
            }
        }
    }
    Ok(inner)
}

/// Bytes that may still be read, shared with the reader below the archive.
type Allowance = Rc<Cell<u64>>;

fn open(path: &Path) -> Result<(Compression, tar::Archive<Metered>, Allowance), ImportError> {
    let failed = |source| ImportError::Io { action: "read", path: path.to_owned(), source };
    let mut file = open_regular(path)?;
    let compression = sniff(&mut file).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let reader = decompress(file, compression).map_err(failed)?;
    let allowance = Allowance::new(Cell::new(MAX_HEADER_BYTES));
    Ok((compression, tar::Archive::new(Metered { reader, allowance: allowance.clone() }), allowance))
}

/// Ends an archive whose headers are larger than [`MAX_HEADER_BYTES`]: the `tar` crate reads long names and
/// extensions into memory whatever size they announce, and compressed zeros cost their sender nothing.
struct Metered {
    reader: Box<dyn Read>,
    allowance: Allowance,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        let left = self.allowance.get().checked_sub(got as u64);
        self.allowance.set(left.ok_or_else(|| io::Error::other("an entry's headers are too large"))?);
        Ok(got)
    }
}
