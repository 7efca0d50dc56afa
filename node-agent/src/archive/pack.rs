//! Goes through a file system and writes its members.
//!
//! The tree is a tenant's: names, depths, links and sizes are of their choice. No link is followed, only files are
//! opened, and what cannot be restored ends the export with its path instead of being left out in silence. Sockets and
//! devices are left out and counted.

use super::{
    sparse,
    tar::{Kind, Member, TarWriter},
};
use hoody_protocol::export::{DOCUMENT, MANIFEST, MAX_ARCHIVE_BYTES, Manifest, ROOT, VERSION};
use std::{
    collections::HashMap,
    fs::{self, File, Metadata, OpenOptions, ReadDir},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// Folders on the way to a file: with those of the unpacker, which counts `rootfs` too.
const MAX_DEPTH: usize = 250;
/// Bytes of a path: likewise.
const MAX_PATH_BYTES: usize = 3900;
/// Longest target of a symbolic link: what the unpacker takes.
const MAX_SYMLINK_BYTES: usize = 4000;
/// Members: what the unpacker takes.
const MAX_ENTRIES: u64 = 1_999_990;
/// Bytes of the paths of files that have several names.
const MAX_LINK_BYTES: usize = 16 << 20;
const COPY_BYTES: usize = 256 << 10;
/// File capabilities that are not bound to some namespace's root, and their length.
const CAPABILITY: &str = "security.capability";

/// Why an archive was not made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file could not be read.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is made is not taken any more.
    #[error("write the archive")]
    Output(#[source] io::Error),
    /// A path could not be restored.
    #[error("the path /{0} is too long or too deep")]
    Path(String),
    /// A file has more extended attributes than can be restored.
    #[error("/{0} has too many extended attributes")]
    Attributes(String),
    /// There are too many files.
    #[error("there are more than {MAX_ENTRIES} files")]
    TooManyEntries,
    /// There are too many files with several names.
    #[error("too many files have several names")]
    TooManyLinks,
    /// The archive would be too long.
    #[error("there are more than {0} bytes")]
    TooLarge(u64),
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PackError {
    move |source| PackError::Io { action, path: path.to_owned(), source }
}

/// Writes the archive of the tree at `root` to `output`, at most `most_bytes` long; gives its manifest, and the output.
pub(super) fn pack<W: Write>(
    root: &Path,
    document: &[u8],
    output: W,
    most_bytes: u64,
) -> Result<(Manifest, W), PackError> {
    let mut packer = Packer {
        tar: TarWriter::new(output),
        most_bytes,
        entries: 0,
        left_out: 0,
        links: HashMap::new(),
        link_bytes: 0,
        buffer: vec![0; COPY_BYTES],
    };
    packer.document(DOCUMENT, document)?;
    packer.tree(root)?;
    packer.finish()
}

struct Packer<W> {
    tar: TarWriter<W>,
    most_bytes: u64,
    entries: u64,
    left_out: u64,
    /// Where a file with several names was written, by its inode number.
    links: HashMap<u64, Vec<u8>>,
    link_bytes: usize,
    buffer: Vec<u8>,
}

/// A folder that is gone through.
struct Folder {
    entries: ReadDir,
    path: PathBuf,
    /// In the archive, with a slash at its end.
    name: Vec<u8>,
}

impl<W: Write> Packer<W> {
    /// A member of ours.
    fn document(&mut self, name: &str, text: &[u8]) -> Result<(), PackError> {
        let member = Member {
            kind: Kind::Regular,
            path: name.as_bytes(),
            link: b"",
            mode: 0o600,
            owner: 0,
            group: 0,
            modified: (0, 0),
            size: text.len() as u64,
            records: Vec::new(),
        };
        let written = self.tar.begin(member).and_then(|_| self.tar.data(text));
        written.and_then(|()| self.tar.fill(text.len() as u64)).map_err(PackError::Output)
    }

    fn tree(&mut self, root: &Path) -> Result<(), PackError> {
        let found = fs::symlink_metadata(root).map_err(io("inspect", root))?;
        let mut folders = vec![self.folder(root.to_owned(), format!("{ROOT}/").into_bytes(), &found)?];
        while let Some(folder) = folders.last_mut() {
            let Some(entry) = folder.entries.next() else {
                folders.pop();
                continue;
            };
            let entry = entry.map_err(io("list", &folder.path))?;
            let (path, found) = (entry.path(), entry.metadata().map_err(io("inspect", &folder.path))?);
            let mut name = [&folder.name, entry.file_name().as_bytes()].concat();
            if name.len() > MAX_PATH_BYTES || folders.len() > MAX_DEPTH {
                return Err(PackError::Path(shown(&name)));
            }
            if found.is_dir() {
                name.push(b'/');
                folders.push(self.folder(path, name, &found)?);
            } else {
                self.leaf(&path, &name, &found)?;
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: PathBuf, name: Vec<u8>, found: &Metadata) -> Result<Folder, PackError> {
        let records = attributes(&path, false)?;
        self.begin(Kind::Directory, &name, b"", found, 0, records)?;
        let entries = fs::read_dir(&path).map_err(io("list", &path))?;
        Ok(Folder { entries, path, name })
    }

    fn leaf(&mut self, path: &Path, name: &[u8], found: &Metadata) -> Result<(), PackError> {
        let kind = found.file_type();
        if kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            self.left_out += 1;
            return Ok(());
        }
        if found.nlink() > 1 {
            if let Some(first) = self.links.get(&found.ino()).cloned() {
                return self.begin(Kind::Link, name, &first, found, 0, Vec::new());
            }
            self.link_bytes += name.len() + size_of::<u64>();
            if self.link_bytes > MAX_LINK_BYTES {
                return Err(PackError::TooManyLinks);
            }
            self.links.insert(found.ino(), name.to_vec());
        }
        if kind.is_symlink() {
            let link = fs::read_link(path).map_err(io("read link", path))?;
            if link.as_os_str().len() > MAX_SYMLINK_BYTES {
                return Err(PackError::Path(shown(name)));
            }
            self.begin(Kind::Symlink, name, link.as_os_str().as_bytes(), found, 0, Vec::new())
        } else if kind.is_fifo() {
            self.begin(Kind::Fifo, name, b"", found, 0, Vec::new())
        } else {
            self.file(path, name, found)
        }
    }

    fn file(&mut self, path: &Path, name: &[u8], found: &Metadata) -> Result<(), PackError> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let mut file = opened.map_err(io("open", path))?;
        let length = found.len();
        if length > MAX_ARCHIVE_BYTES {
            // Also where it is all holes: no file of this length is made when it is unpacked.
            return Err(PackError::TooLarge(MAX_ARCHIVE_BYTES));
        }
        let mut records = attributes(path, true)?;
        let Some(segments) = sparse::segments(&file, length).map_err(io("look for holes in", path))? else {
            self.begin(Kind::Regular, name, b"", found, length, records)?;
            self.copy(&mut file, path, length)?;
            return self.tar.fill(length).map_err(PackError::Output);
        };
        let map = sparse::map(&segments);
        let size = map.len() as u64 + segments.iter().map(|(_, length)| length).sum::<u64>();
        for (key, value) in [("major", "1".to_owned()), ("minor", "0".to_owned()), ("realsize", length.to_string())] {
            records.push((format!("GNU.sparse.{key}").into_bytes(), value.into_bytes()));
        }
        records.push((b"GNU.sparse.name".to_vec(), name.to_vec()));
        // Shown by programs that do not know the form: the file without its holes.
        self.begin(Kind::Regular, name, b"", found, size, records)?;
        self.tar.data(&map).map_err(PackError::Output)?;
        for (offset, length) in segments {
            file.seek(SeekFrom::Start(offset)).map_err(io("read", path))?;
            self.copy(&mut file, path, length)?;
        }
        self.tar.fill(size).map_err(PackError::Output)
    }

    fn begin(
        &mut self,
        kind: Kind,
        name: &[u8],
        link: &[u8],
        found: &Metadata,
        size: u64,
        records: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), PackError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(PackError::TooManyEntries);
        }
        if self.tar.bytes().saturating_add(size) > self.most_bytes {
            return Err(PackError::TooLarge(self.most_bytes));
        }
        let member = Member {
            kind,
            path: name,
            link,
            mode: found.mode() & 0o7777,
            owner: found.uid(),
            group: found.gid(),
            modified: (found.mtime(), found.mtime_nsec()),
            size,
            records,
        };
        match self.tar.begin(member).map_err(PackError::Output)? {
            true => Ok(()),
            false => Err(PackError::Attributes(shown(name))),
        }
    }

    /// Exactly `length` bytes of the file.
    fn copy(&mut self, file: &mut File, path: &Path, mut length: u64) -> Result<(), PackError> {
        while length > 0 {
            let wanted = self.buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let read = file.read(&mut self.buffer[..wanted]).map_err(io("read", path))?;
            if read == 0 {
                return Err(io("read", path)(io::ErrorKind::UnexpectedEof.into()));
            }
            self.tar.data(&self.buffer[..read]).map_err(PackError::Output)?;
            length -= read as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Manifest, W), PackError> {
        let (bytes, digest) = self.tar.so_far();
        let manifest = Manifest { version: VERSION, bytes, digest, entries: self.entries, left_out: self.left_out };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| PackError::Output(error.into()))?;
        self.document(MANIFEST, &text)?;
        Ok((manifest, self.tar.finish().map_err(PackError::Output)?))
    }
}

/// Name and value of a PAX record.
type Record = (Vec<u8>, Vec<u8>);

/// Extended attributes that are restored, as PAX records.
fn attributes(path: &Path, is_file: bool) -> Result<Vec<Record>, PackError> {
    let failed = || io("read the attributes of", path);
    let mut records = Vec::new();
    for name in xattr::list(path).map_err(failed())? {
        let kept = name.as_bytes().starts_with(b"user.") || (is_file && name.as_bytes() == CAPABILITY.as_bytes());
        if !kept {
            continue;
        }
        if name.as_bytes().contains(&b'=') {
            // A record could not be read as it was written.
            return Err(PackError::Attributes(path.display().to_string()));
        }
        if let Some(value) = xattr::get(path, &name).map_err(failed())? {
            records.push(([b"SCHILY.xattr.", name.as_bytes()].concat(), value));
        }
    }
    Ok(records)
}

/// A path below the root, for people.
fn shown(name: &[u8]) -> String {
    let name = name.strip_prefix(ROOT.as_bytes()).unwrap_or(name);
    String::from_utf8_lossy(name).trim_start_matches('/').chars().take(200).collect()
}
