//! Finding folders in a file system that is a tenant's, who may change it while this works: the kernel resolves the path
//! inside of the root, and what it found is held by a descriptor from then on.

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
};
use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

/// How often a resolution starts over that somebody's renames disturb (`EAGAIN`, openat2(2)).
const TRIES: usize = 64;

/// Opens the folder at `path` in `root` by its place alone (`O_PATH`); links lead nowhere but inside. `more` restricts it
/// further: `RESOLVE_NO_XDEV` to what is no other mount's.
pub(crate) fn open_folder(root: BorrowedFd<'_>, path: &Path, more: ResolveFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
    for _ in 0..TRIES {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::EAGAIN)
}

/// The path of `folder` in `root`, links resolved; `/` for the root itself. An error where it is outside: moved or deleted
/// meanwhile.
pub(crate) fn path_of(root: BorrowedFd<'_>, folder: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let place = |file: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let (root, folder) = (place(root)?, place(folder)?.into_os_string().into_vec());
    match folder.strip_prefix(root.as_os_str().as_bytes()) {
        Some(b"") => Ok(PathBuf::from("/")),
        Some(inside) if inside.starts_with(b"/") => Ok(PathBuf::from(OsStr::from_bytes(inside))),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn neither_magic_links_nor_other_mounts_where_they_are_refused() {
        let root = std::fs::File::open("/").unwrap();
        let open = |path: &str, more| open_folder(root.as_fd(), Path::new(path), more).map(drop);
        assert_eq!(open("/proc/self", ResolveFlag::empty()), Ok(()));
        assert_eq!(open("/proc/self/root", ResolveFlag::empty()), Err(Errno::ELOOP));
        assert_eq!(open("/proc/self/cwd", ResolveFlag::empty()), Err(Errno::ELOOP));
        assert_eq!(open("/proc", ResolveFlag::RESOLVE_NO_XDEV), Err(Errno::EXDEV));
    }

    #[test]
    fn what_is_outside_has_no_path_inside() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root/in", "rooted"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let open = |name: &str| std::fs::File::open(folder.path().join(name)).unwrap();
        let path = |name: &str| path_of(open("root").as_fd(), open(name).as_fd()).ok();
        assert_eq!(path("root"), Some("/".into()));
        assert_eq!(path("root/in"), Some("/in".into()));
        assert_eq!((path("rooted"), path(".")), (None, None));
    }
}
