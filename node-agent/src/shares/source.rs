//! Finding the folder that is shared. The file system is the tenant's, who may change it while this works: the kernel
//! resolves the path inside of the container's root, and what it found is held by a descriptor from then on.
//!
//! The root is the container's subvolume itself, below everything that is mounted in the container: shares that it
//! mounts, its RAM disk and `/proc` are not in it, so nothing is shared twice and nothing goes in a circle.

use crate::storage::{inside, subvolume};
use hoody_protocol::share::{ShareMount, ShareProblem, normal_path};
use nix::{errno::Errno, fcntl::ResolveFlag, sys::stat::fstat};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// The folder, held open by its place alone (`O_PATH`).
pub(super) fn open(containers: &Path, share: &ShareMount) -> Result<OwnedFd, ShareProblem> {
    let path = containers.join(share.source.to_string());
    let root = match subvolume::open(&path) {
        Ok(Some(root)) => root,
        Ok(None) => return Err(ShareProblem::SourceMissing),
        Err(error) => {
            tracing::warn!(share = %share.id, error = &error as &dyn std::error::Error, "the source of a share was not opened");
            return Err(ShareProblem::Failed);
        }
    };
    let folder = resolve(&root, share.path.as_str())?;
    let found = fstat(&folder).map_err(|_| ShareProblem::Failed)?;
    if found.st_nlink == 0 {
        return Err(ShareProblem::SourceMissing);
    }
    is_sharable(&root, &folder)?;
    Ok(folder)
}

fn resolve(root: &OwnedFd, path: &str) -> Result<OwnedFd, ShareProblem> {
    inside::open_folder(root.as_fd(), Path::new(path), ResolveFlag::RESOLVE_NO_XDEV).map_err(|errno| match errno {
        Errno::ENOENT => ShareProblem::SourceMissing,
        Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::EXDEV => ShareProblem::NotAFolder,
        errno => {
            tracing::warn!(%errno, "the folder of a share was not opened");
            ShareProblem::Failed
        }
    })
}

/// Where the path really led: links may lead to what is not shared. The source moved it elsewhere meanwhile, or deeper than
/// paths reach: the next pass looks again.
fn is_sharable(root: &OwnedFd, folder: &OwnedFd) -> Result<(), ShareProblem> {
    let path = inside::path_of(root.as_fd(), folder.as_fd()).map_err(|_| ShareProblem::Failed)?;
    // A name that is no text is no system path either.
    match path.to_str().map(normal_path) {
        Some(Err(_)) => Err(ShareProblem::SystemPath),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::fd::OwnedFd, os::unix::fs::symlink};

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        for inside in ["srv/data", "proc", "mnt/shares", "etc"] {
            fs::create_dir_all(folder.path().join(inside)).unwrap();
        }
        let root = fs::File::open(folder.path()).unwrap().into();
        (folder, root)
    }

    fn open(root: &OwnedFd, path: &str) -> Result<OwnedFd, ShareProblem> {
        resolve(root, path).and_then(|folder| is_sharable(root, &folder).map(|()| folder))
    }

    #[test]
    fn links_lead_nowhere_but_inside() {
        let (folder, root) = root();
        let at = |inside: &str| folder.path().join(inside);
        let outside = tempfile::tempdir().unwrap();
        symlink("/srv/data", at("srv/inside")).unwrap();
        symlink(outside.path(), at("srv/outside")).unwrap();
        symlink("../../../../../../../../etc", at("srv/up")).unwrap();
        symlink("/proc/self/root", at("srv/magic")).unwrap();
        symlink("loop", at("srv/loop")).unwrap();
        symlink("/", at("srv/all")).unwrap();
        symlink("/proc", at("srv/proc")).unwrap();
        symlink("../mnt/shares", at("srv/shares")).unwrap();
        fs::write(at("srv/file"), "x").unwrap();
        let ino = |folder: OwnedFd| fstat(folder).unwrap().st_ino;
        let of = |inside: &str| fstat(fs::File::open(at(inside)).unwrap()).unwrap().st_ino;
        assert_eq!(ino(open(&root, "/srv/inside").unwrap()), of("srv/data"));
        assert_eq!(ino(open(&root, "/srv/up").unwrap()), of("etc"), "above the root is the root");
        for (path, problem) in [
            ("/srv/outside", ShareProblem::SourceMissing),
            ("/srv/magic", ShareProblem::SourceMissing),
            ("/srv/none", ShareProblem::SourceMissing),
            ("/srv/loop", ShareProblem::NotAFolder),
            ("/srv/file", ShareProblem::NotAFolder),
            ("/srv/all", ShareProblem::SystemPath),
            ("/srv/proc", ShareProblem::SystemPath),
            ("/srv/shares", ShareProblem::SystemPath),
        ] {
            assert_eq!(open(&root, path).map(ino), Err(problem), "{path}");
        }
    }
}
