//! Shares at places of their own: what is mounted below `/mnt/shares` appears where its target wants it, too.
//!
//! A container's root is a slave of the mount of its root file system on the host, so what is mounted in that appears
//! inside, its attributes locked as they are below `/mnt/shares`. The paths are the target's, who may change them while
//! this works: the kernel resolves them in that root, what was found is held by a descriptor, and nothing is mounted or
//! unmounted by name. Where the target moves a folder above a place, the mount moves along: the next look takes it off
//! and mounts the share at its place again. Nothing but shares is ever mounted in that root on the host.

use super::{
    ShareError,
    mountinfo::{self, Found},
};
use crate::storage::{
    inside, made,
    mount::{self, Seen},
};
use hoody_protocol::share::{ShareMount, ShareProblem, normal_place, overlap};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::{
        stat::{Mode, fstat},
        statvfs::{FsFlags, fstatvfs},
    },
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// How often one place, and everything that has to go, is looked for while the target moves it about.
const TRIES: usize = 16;

/// A container's root file system, as its places are resolved in it.
pub(super) struct Root {
    /// Where it is mounted on the host.
    path: PathBuf,
    /// That mount.
    mounted: OwnedFd,
    /// Its id.
    id: u64,
    /// The subvolume behind it, where the node's root is the container's.
    files: OwnedFd,
}

/// How places are after [`Root::converge`].
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// What is not at its place: its number among those wanted.
    pub(super) failures: Vec<(usize, ShareProblem)>,
    /// What was not mounted anywhere before and is now, likewise.
    pub(super) mounted: Vec<usize>,
    /// Nothing is mounted, and no folder that was made for it is left.
    pub(super) is_clean: bool,
}

/// What is at the place of a share.
enum Place {
    /// The share, in this mount.
    Standing(u64),
    /// A folder of the container's own, and its path there.
    Free(OwnedFd, PathBuf),
    /// The top of another share's mount, or of one with other attributes, with its id.
    Other(u64, OwnedFd),
    /// Nothing.
    Missing,
}

impl Root {
    /// `None` where it is not mounted: the container does not run.
    pub(super) fn open(path: &Path, files: OwnedFd) -> Result<Option<Self>, ShareError> {
        if !mount::is_mount_point(path).map_err(ShareError::io("inspect", path))? {
            return Ok(None);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = nix::fcntl::open(path, flags, Mode::empty()).map_err(io::Error::from);
        let seen = opened.and_then(|mounted| Ok((mount::seen_through(mounted.as_fd())?, mounted)));
        let (Seen { id, .. }, mounted) = seen.map_err(ShareError::io("open", path))?;
        Ok(Some(Self { path: path.to_owned(), mounted, id, files }))
    }

    /// Makes exactly `wanted` stand at their places, the first first; each is a copy of what is mounted below `shares`.
    pub(super) fn converge(&self, wanted: &[&ShareMount], shares: &Path) -> Result<Placed, ShareError> {
        let inside_another = |at: usize| wanted[..at].iter().any(|other| overlap(place(other), place(wanted[at])));
        let from = |share: &ShareMount| shares.join(share.name.as_str());
        let standing = (0..wanted.len()).filter(|at| !inside_another(*at)).filter_map(|at| {
            match self.look(wanted[at], &from(wanted[at])) {
                Ok(Place::Standing(id)) => Some(id),
                _ => None,
            }
        });
        let before: Vec<u64> = standing.collect();
        // First, for what is to come may be mounted below.
        let moved = self.detach_but(before.clone()).map_err(ShareError::io("unmount what is in", &self.path))?;
        let mut placed = Placed::default();
        let mut taken = Vec::new();
        for (at, share) in wanted.iter().enumerate() {
            let outcome = match inside_another(at) {
                true => Err(ShareProblem::PlaceTaken),
                false => self.place(share, &from(share), &taken),
            };
            match outcome {
                Ok(id) => {
                    taken.push(id);
                    if !moved && !before.contains(&id) {
                        placed.mounted.push(at);
                    }
                }
                Err(problem) => placed.failures.push((at, problem)),
            }
        }
        let left = made::remove_unused(self.files.as_fd()).map_err(ShareError::io("tidy", &self.path))?;
        placed.is_clean = taken.is_empty() && !left;
        Ok(placed)
    }

    /// Mounts the share at its place where it is not, unless one of `taken` is there; gives its mount.
    fn place(&self, share: &ShareMount, mounted: &Path, taken: &[u64]) -> Result<u64, ShareProblem> {
        for _ in 0..TRIES {
            match self.look(share, mounted)? {
                Place::Standing(id) | Place::Other(id, _) if taken.contains(&id) => {
                    return Err(ShareProblem::PlaceTaken);
                }
                Place::Standing(id) => return Ok(id),
                Place::Missing if self.is_below_another(share)? => return Err(ShareProblem::PlaceTaken),
                Place::Missing => made::make(self.files.as_fd(), place(share), is_open).map_err(taken_by)?,
                Place::Free(_, path) if self.covers(&path, taken).map_err(failed)? => {
                    return Err(ShareProblem::PlaceTaken);
                }
                Place::Free(folder, _) => {
                    hoody_fault::point!("place.mounting");
                    let from = open(mounted).map_err(failed)?;
                    mount::bind(from.as_fd(), folder.as_fd()).map_err(failed)?;
                    hoody_fault::point!("place.mounted");
                }
                // Nothing of ours stands there but what is not as it should be.
                Place::Other(_, top) => mount::detach(top.as_fd()).map_err(failed)?,
            }
        }
        Err(ShareProblem::Failed)
    }

    /// What is at the share's place.
    fn look(&self, share: &ShareMount, mounted: &Path) -> Result<Place, ShareProblem> {
        let path = Path::new(place(share));
        let folder = match inside::open_folder(self.mounted.as_fd(), path, ResolveFlag::empty()) {
            Err(Errno::ENOENT) => return Ok(Place::Missing),
            folder => folder.map_err(taken_by)?,
        };
        let Seen { id, is_top } = mount::seen_through(folder.as_fd()).map_err(failed)?;
        if id == self.id {
            // Moved meanwhile: looked for again with the next pass.
            let led = inside::path_of(self.mounted.as_fd(), folder.as_fd()).map_err(|_| ShareProblem::PlaceTaken)?;
            return if is_open(&led) { Ok(Place::Free(folder, led)) } else { Err(ShareProblem::PlaceTaken) };
        }
        if !is_top {
            return Err(ShareProblem::PlaceTaken);
        }
        let from = open(mounted).map_err(failed)?;
        match is_same(from.as_fd(), folder.as_fd(), share.readonly).map_err(failed)? {
            true => Ok(Place::Standing(id)),
            false => Ok(Place::Other(id, folder)),
        }
    }

    /// True where one of `taken` stands below `path`.
    fn covers(&self, path: &Path, taken: &[u64]) -> io::Result<bool> {
        if taken.is_empty() {
            return Ok(false);
        }
        let found = mountinfo::below(&mountinfo::own()?, self.id, &self.path);
        Ok(found.iter().any(|found| taken.contains(&found.id) && Path::new("/").join(&found.path).starts_with(path)))
    }

    /// True where what there is of the way to the share's place leads into another mount: a folder that is made in the files
    /// would not be seen.
    fn is_below_another(&self, share: &ShareMount) -> Result<bool, ShareProblem> {
        for path in Path::new(place(share)).ancestors().skip(1) {
            match inside::open_folder(self.mounted.as_fd(), path, ResolveFlag::empty()) {
                Ok(folder) => return Ok(mount::seen_through(folder.as_fd()).map_err(failed)?.id != self.id),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(taken_by(errno)),
            }
        }
        Err(ShareProblem::Failed)
    }

    /// Takes off everything but `standing`; gives whether there was anything.
    fn detach_but(&self, mut standing: Vec<u64>) -> io::Result<bool> {
        let mut any = false;
        for _ in 0..TRIES {
            let mut others = mountinfo::below(&mountinfo::own()?, self.id, &self.path);
            others.retain(|found| !standing.contains(&found.id));
            if others.is_empty() {
                return Ok(any);
            }
            any = true;
            let mut is_stuck = true;
            // What is inside of another first.
            for found in others.iter().rev() {
                is_stuck &= !self.detach(found)?;
            }
            if is_stuck {
                // It can be below one that stands: that one comes back.
                standing.clear();
            }
        }
        Err(io::Error::other("what is mounted is moved about"))
    }

    /// Takes it off where it still is what was found.
    fn detach(&self, found: &Found) -> io::Result<bool> {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_SYMLINKS,
        );
        // Moved meanwhile, or below another: found again.
        let Ok(top) = openat2(&self.mounted, &found.path, how) else { return Ok(false) };
        if mount::seen_through(top.as_fd())? != (Seen { id: found.id, is_top: true }) {
            return Ok(false);
        }
        mount::detach(top.as_fd())?;
        hoody_fault::point!("place.detached");
        Ok(true)
    }
}

/// Where the share wants to be; the shares that this is asked of have a place.
fn place(share: &ShareMount) -> &str {
    share.place.as_ref().map_or("/", |place| place.as_str())
}

/// True where a share may appear at `path` in the container. A name that is no text is no system path either.
fn is_open(path: &Path) -> bool {
    path.to_str().is_none_or(|path| normal_place(path).is_ok())
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

fn failed(error: io::Error) -> ShareProblem {
    tracing::warn!(error = &error as &dyn std::error::Error, "a share was not placed");
    ShareProblem::Failed
}

fn taken_by(errno: Errno) -> ShareProblem {
    match errno {
        // What the target has there, or no room for a folder.
        Errno::EEXIST
        | Errno::ENOTDIR
        | Errno::ELOOP
        | Errno::ENAMETOOLONG
        | Errno::ENOENT
        | Errno::EPERM
        | Errno::ENOSPC
        | Errno::EDQUOT => ShareProblem::PlaceTaken,
        errno => failed(errno.into()),
    }
}

/// True where both show the same folder with the same owners, as writable as it should be.
fn is_same(share: BorrowedFd<'_>, placed: BorrowedFd<'_>, readonly: bool) -> io::Result<bool> {
    let (one, other) = (fstat(share)?, fstat(placed)?);
    let flags = fstatvfs(placed)?.flags();
    Ok((one.st_dev, one.st_ino, one.st_uid, one.st_gid) == (other.st_dev, other.st_ino, other.st_uid, other.st_gid)
        && flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV)
        && flags.contains(FsFlags::ST_RDONLY) == readonly)
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
