//! Applies one layer to a root: the OCI image layer format (image-spec, "Image Layer Filesystem Changeset").
//!
//! The caller is confined so that `root` is its `/`; absolute links then stay inside.

use super::{
    archive::{Archive, Entry, Kind},
    metadata,
    path::EntryPath,
    report::{Refusal, Stop, Tally},
    sparse,
};
use hoody_protocol::export::{DOCUMENT, MANIFEST, ROOT};
use nix::libc;
use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Mode of folders that the archive does not list.
const IMPLIED_FOLDER_MODE: u32 = 0o755;
/// Longest target of a symbolic link.
const MAX_SYMLINK_BYTES: usize = 4000;
const COPY_BYTES: usize = 128 << 10;

/// What a layer may come to at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Bytes that one file says it has, holes included, which take nothing.
    pub file_bytes: u64,
}

/// What an archive means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A layer of an image, with whiteouts.
    Layer,
    /// A container's: its files are below a folder, and every name is a name.
    Container,
}

/// Unpacks the layer. A stop carries the path of the entry that it is about.
pub(crate) fn apply(reader: impl Read, root: &Path, limits: Limits, form: Form) -> Result<Tally, (Stop, Vec<u8>)> {
    let mut archive = Archive::new(reader);
    let mut layer = Layer {
        root,
        form,
        limits,
        tally: Tally::default(),
        made: HashSet::new(),
        folders: Vec::new(),
        around: HashMap::new(),
        buffer: vec![0; COPY_BYTES],
    };
    while let Some(entry) = archive.next_entry()? {
        layer.entry(&mut archive, &entry).map_err(|stop| (stop, entry.path))?;
    }
    layer.finish().map_err(|stop| (stop, Vec::new()))
}

struct Layer<'a> {
    root: &'a Path,
    form: Form,
    limits: Limits,
    tally: Tally,
    /// Marks of what this layer made: whiteouts are about the layers below only.
    made: HashSet<u64>,
    /// Times of folders; they are set last, because making files in a folder changes them.
    folders: Vec<(PathBuf, (i64, i64))>,
    /// Folders in which something changes and which the layer may not list, by inode: one of the ways to each, and
    /// the time that it had. Unpacked on two servers a layer is the same to the last time.
    around: HashMap<u64, (PathBuf, (i64, i64))>,
    buffer: Vec<u8>,
}

impl Layer<'_> {
    fn entry<R: Read>(&mut self, archive: &mut Archive<R>, entry: &Entry) -> Result<(), Stop> {
        self.tally.entries += 1;
        if self.tally.entries > self.limits.entries {
            return Err(Refusal::TooManyEntries.into());
        }
        let Some(path) = self.place(&entry.path)? else { return Ok(()) };
        match path.name() {
            Some(name) if self.form == Form::Layer && name.starts_with(WHITEOUT) => return self.whiteout(&path, name),
            None if entry.kind != Kind::Folder => return Err(Refusal::Path.into()),
            _ => {}
        }
        if entry.kind == Kind::Device {
            self.tally.devices_skipped += 1;
            return Ok(());
        }
        self.make_parents(&path, entry.modified)?;
        let target = path.below(self.root);
        let kept = make_way(&target, entry.kind == Kind::Folder)?;
        self.made.extend(path.marks());
        match entry.kind {
            Kind::File => self.file(archive, entry, &target)?,
            Kind::Folder if kept => {}
            Kind::Folder => DirBuilder::new().mode(0o700).create(&target).map_err(misplaced)?,
            Kind::Symlink => symlink(&entry.link, &target)?,
            // The file that it names has been given its owner, mode and time by its own entry.
            Kind::HardLink => return self.hard_link(&entry.link, &path),
            Kind::Fifo => nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRUSR)?,
            Kind::Device => {}
        }
        self.tally.xattrs_dropped += metadata::apply(&target, entry)?;
        match entry.kind {
            Kind::Folder => self.folders.push((target, entry.modified)),
            _ => metadata::set_time(&target, entry.modified)?,
        }
        Ok(())
    }

    /// Where an entry belongs; `None`: it is not a file of the tree.
    fn place(&self, path: &[u8]) -> Result<Option<EntryPath>, Stop> {
        let path = EntryPath::parse(path)?;
        let about = |name: &[u8]| name == DOCUMENT.as_bytes() || name == MANIFEST.as_bytes();
        match self.form {
            Form::Layer => Ok(Some(path)),
            Form::Container if path.marks().count() == 1 && path.name().is_some_and(about) => Ok(None),
            Form::Container => Ok(Some(path.inside(ROOT.as_bytes()).ok_or(Refusal::Path)?)),
        }
    }

    fn file(&mut self, data: &mut impl Read, entry: &Entry, target: &Path) -> Result<(), Stop> {
        let total = self.tally.bytes.checked_add(entry.size).filter(|total| *total <= self.limits.bytes);
        self.tally.bytes = total.ok_or(Refusal::TooManyBytes)?;
        if entry.real_size.is_some_and(|size| size > self.limits.file_bytes) {
            return Err(Refusal::TooManyBytes.into());
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file: File = options.open(target).map_err(misplaced)?;
        let Some(real_size) = entry.real_size else { return self.copy(data, &mut file) };
        for (offset, length) in sparse::read_map(data, entry.size, real_size)? {
            file.seek(SeekFrom::Start(offset))?;
            self.copy(&mut data.by_ref().take(length), &mut file)?;
        }
        Ok(file.set_len(real_size)?)
    }

    /// Writes what is left of the data.
    fn copy(&mut self, data: &mut impl Read, file: &mut File) -> Result<(), Stop> {
        loop {
            match data.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => file.write_all(&self.buffer[..n])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(super::archive::damaged(error)),
            }
        }
    }

    fn hard_link(&self, link: &[u8], path: &EntryPath) -> Result<(), Stop> {
        let source = self.place(link)?.ok_or(Refusal::LinkTarget)?;
        if source == *path || source.name().is_none() {
            return Err(Refusal::LinkTarget.into());
        }
        // Does not follow a symbolic link in the last place.
        match fs::hard_link(source.below(self.root), path.below(self.root)) {
            Err(error) if is_about_place(&error) || is_link_refusal(&error) => Err(Refusal::LinkTarget.into()),
            other => Ok(other?),
        }
    }

    /// Makes the folders above `path` that are missing: they are as old as what needs them.
    fn make_parents(&mut self, path: &EntryPath, time: (i64, i64)) -> Result<(), Stop> {
        let parent = path.parent_below(self.root);
        match fs::metadata(&parent) {
            Ok(found) if found.is_dir() => {
                self.remember(parent, &found);
                return Ok(());
            }
            Ok(_) => return Err(Refusal::ParentNotFolder.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(misplaced(error)),
        }
        self.remember(self.root.to_owned(), &fs::metadata(self.root)?);
        for folder in path.folders_below(self.root) {
            match DirBuilder::new().mode(IMPLIED_FOLDER_MODE).create(&folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let found = fs::metadata(&folder).map_err(misplaced)?;
                    self.remember(folder, &found);
                }
                other => {
                    other.map_err(misplaced)?;
                    self.around.insert(fs::metadata(&folder)?.ino(), (folder, time));
                }
            }
        }
        Ok(())
    }

    /// Something is about to change in the folder.
    fn remember(&mut self, folder: PathBuf, found: &fs::Metadata) {
        self.around.entry(found.ino()).or_insert_with(|| (folder, (found.mtime(), found.mtime_nsec())));
    }

    fn whiteout(&mut self, path: &EntryPath, name: &[u8]) -> Result<(), Stop> {
        let folder = path.parent_below(self.root);
        if let Ok(found) = fs::metadata(&folder) {
            self.remember(folder, &found);
        }
        if name == OPAQUE {
            self.tally.whiteouts += 1;
            return self.empty(&path.folder());
        }
        if name.starts_with(WHITEOUT_META) {
            // Bookkeeping of AUFS, from which the format comes.
            return Ok(());
        }
        let name = &name[WHITEOUT.len()..];
        if matches!(name, b"" | b"." | b"..") {
            return Err(Refusal::Path.into());
        }
        self.tally.whiteouts += 1;
        self.remove_lower(&path.sibling(name))
    }

    /// Removes what the layers below put into the folder.
    fn empty(&self, folder: &EntryPath) -> Result<(), Stop> {
        let entries = match fs::read_dir(folder.below(self.root)) {
            Ok(entries) => entries,
            Err(error) if is_about_place(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            self.remove_lower(&folder.child(&entry?.file_name()))?;
        }
        Ok(())
    }

    /// Removes `path` as far as it is from the layers below.
    fn remove_lower(&self, path: &EntryPath) -> Result<(), Stop> {
        let target = path.below(self.root);
        if !path.marks().last().is_some_and(|mark| self.made.contains(&mark)) {
            make_way(&target, false)?;
        } else if fs::symlink_metadata(&target).is_ok_and(|found| found.is_dir()) {
            self.empty(path)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Tally, Stop> {
        for (inode, (path, time)) in self.around {
            // A later entry may have put something else there.
            if fs::metadata(&path).is_ok_and(|found| found.is_dir() && found.ino() == inode) {
                metadata::set_time_through_links(&path, time)?;
            }
        }
        for (path, time) in self.folders {
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                metadata::set_time(&path, time)?;
            }
        }
        Ok(self.tally)
    }
}

/// Removes what is at `path`; true where it is a folder and is kept.
fn make_way(path: &Path, keep_folder: bool) -> Result<bool, Stop> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() && keep_folder => return Ok(true),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if is_about_place(&error) => Ok(false),
        other => Ok(other.map(|()| false)?),
    }
}

fn symlink(link: &[u8], target: &Path) -> Result<(), Stop> {
    if link.is_empty() || link.contains(&0) {
        return Err(Refusal::Path.into());
    }
    if link.len() > MAX_SYMLINK_BYTES {
        return Err(Refusal::PathTooLong.into());
    }
    std::os::unix::fs::symlink(OsStr::from_bytes(link), target).map_err(misplaced)
}

/// Nothing is there, or the way to it is no way.
fn is_about_place(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

/// A folder as target, or too many links.
fn is_link_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EMLINK | libc::EXDEV))
}

fn misplaced(error: io::Error) -> Stop {
    match error.raw_os_error() {
        Some(libc::ENAMETOOLONG) => Refusal::PathTooLong.into(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EEXIST) => Refusal::ParentNotFolder.into(),
        _ => error.into(),
    }
}
