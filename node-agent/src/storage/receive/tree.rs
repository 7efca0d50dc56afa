//! The file system being received: paths to places in it. Every place is reached folder by folder from the top
//! without passing a link (`openat2(2)`), so that a link that the stream made is never gone through.

use super::report::{Refusal, Stop};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
    rc::Rc,
};

/// Longest path in bytes, below the kernel's 4,096.
const MAX_PATH_BYTES: usize = 4000;

/// An open folder, and a name in it: `.` for the folder itself.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) folder: Rc<OwnedFd>,
    pub(crate) name: OsString,
}

/// The tree, with the folder and the file that were used last.
#[derive(Debug)]
pub(crate) struct Tree {
    top: Rc<OwnedFd>,
    folder: Option<(Vec<u8>, Rc<OwnedFd>)>,
    file: Option<(Vec<u8>, File)>,
}

impl Tree {
    /// The tree below the open folder `top`.
    pub(crate) fn new(top: OwnedFd) -> Self {
        Self { top: Rc::new(top), folder: None, file: None }
    }

    /// Where `path` is; empty: the top itself.
    pub(crate) fn place(&mut self, path: &[u8]) -> Result<Place, Stop> {
        if path.is_empty() {
            return Ok(Place { folder: self.top.clone(), name: ".".into() });
        }
        let wrong = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
        if path.len() > MAX_PATH_BYTES || path.contains(&0) || path.split(|byte| *byte == b'/').any(wrong) {
            return Err(refused(path));
        }
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&[][..], path),
        };
        let name = OsStr::from_bytes(name).to_owned();
        if parent.is_empty() {
            return Ok(Place { folder: self.top.clone(), name });
        }
        if let Some((_, folder)) = self.folder.as_ref().filter(|(known, _)| known == parent) {
            return Ok(Place { folder: folder.clone(), name });
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let folder = Rc::new(open(self.top.as_fd(), Path::new(OsStr::from_bytes(parent)), flags, path)?);
        self.folder = Some((parent.to_vec(), folder.clone()));
        Ok(Place { folder, name })
    }

    /// The file at `path`, open for writing.
    pub(crate) fn file(&mut self, path: &[u8]) -> Result<&File, Stop> {
        if self.file.as_ref().is_none_or(|(known, _)| known != path) {
            let opened = self.open(path, OFlag::O_WRONLY)?;
            self.file = Some((path.to_vec(), opened));
        }
        self.file.as_ref().map(|(_, file)| file).ok_or_else(|| Errno::ENOENT.into())
    }

    /// The plain file at `path`, open.
    pub(crate) fn open(&mut self, path: &[u8], flags: OFlag) -> Result<File, Stop> {
        let place = self.place(path)?;
        // Nonblocking, should it be a FIFO.
        let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW;
        let file = File::from(open(place.folder.as_fd(), Path::new(&place.name), flags, path)?);
        if !file.metadata()?.is_file() {
            return Err(refused(path));
        }
        Ok(file)
    }

    /// Forgets what was open: names are about to mean something else.
    pub(crate) fn forget(&mut self) {
        (self.folder, self.file) = (None, None);
    }

    /// Forgets the file that was open: its owner, mode or attributes are next, or it is complete.
    pub(crate) fn close_file(&mut self) {
        self.file = None;
    }
}

fn open(from: BorrowedFd<'_>, name: &Path, flags: OFlag, path: &[u8]) -> Result<OwnedFd, Stop> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(Mode::empty()).resolve(resolve);
    match openat2(from, name, how) {
        Err(Errno::ELOOP | Errno::EXDEV | Errno::ENXIO) => Err(refused(path)),
        opened => Ok(opened?),
    }
}

/// The path cannot be one of the kernel's.
pub(crate) fn refused(path: &[u8]) -> Stop {
    Stop::Refused(Refusal::Path, String::from_utf8_lossy(path).into_owned())
}
