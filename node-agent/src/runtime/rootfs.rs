//! Reads a tenant's root file system as the host's root, which is dangerous: every path is resolved
//! by the kernel inside that root (`openat2(2)`, `RESOLVE_IN_ROOT`), nothing but regular files is read,
//! and never more than a bound. Opening a FIFO or device that a tenant planted must not block or act.

use super::{RuntimeError, error::io};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
};
use std::{
    fs::File,
    io::Read,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// Enough for any honest `/etc/passwd`.
const MAX_READ_BYTES: u64 = 1 << 20;

/// A root file system, held open.
#[derive(Debug)]
pub(super) struct Rootfs {
    folder: File,
    path: PathBuf,
}

impl Rootfs {
    pub(super) fn open(path: &Path) -> Result<Self, RuntimeError> {
        let folder = File::open(path).map_err(io("open root file system", path))?;
        if !folder.metadata().map_err(io("stat", path))?.is_dir() {
            return Err(io("open root file system", path)(std::io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { folder, path: path.into() })
    }

    /// The text of a regular file; `None` where there is none. Bytes that are not UTF-8 are replaced.
    pub(super) fn read(&self, inside: &str) -> Result<Option<String>, RuntimeError> {
        // Nonblocking and without becoming a controlling terminal, should it be a FIFO or a device.
        let Some(file) = self.resolve(inside, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)? else {
            return Ok(None);
        };
        let path = || self.path.join(inside.trim_start_matches('/'));
        if !file.metadata().map_err(io("stat", path()))?.is_file() {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(MAX_READ_BYTES).read_to_end(&mut text).map_err(io("read", path()))?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// The file name that `inside` leads to, links followed, where that is an executable regular file.
    pub(super) fn executable(&self, inside: &str) -> Result<Option<String>, RuntimeError> {
        let Some(file) = self.resolve(inside, OFlag::O_PATH)? else { return Ok(None) };
        let metadata = file.metadata().map_err(io("stat", self.path.join(inside.trim_start_matches('/'))))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Ok(None);
        }
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let target = std::fs::read_link(&link).map_err(io("read link", &link))?;
        Ok(target.file_name().map(|name| name.to_string_lossy().into_owned()))
    }

    /// True where `inside` is a folder, or one can be made there.
    pub(super) fn takes_folder(&self, inside: &str) -> Result<bool, RuntimeError> {
        for place in Path::new(inside).ancestors() {
            let name = place.to_string_lossy();
            if let Some(found) = self.resolve(&name, OFlag::O_PATH)? {
                return Ok(found
                    .metadata()
                    .map_err(io("stat", self.path.join(inside.trim_start_matches('/'))))?
                    .is_dir());
            }
            // A link that leads nowhere, or in circles.
            if self.resolve(&name, OFlag::O_PATH | OFlag::O_NOFOLLOW)?.is_some() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn resolve(&self, inside: &str, flags: OFlag) -> Result<Option<File>, RuntimeError> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match openat2(&self.folder, inside, how) {
            Ok(fd) => Ok(Some(File::from(fd))),
            // Absent, or a trap: loops, device without driver, sockets. All mean "no such file".
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO | Errno::ENODEV | Errno::ENAMETOOLONG) => {
                Ok(None)
            }
            Err(errno) => Err(io("open", self.path.join(inside.trim_start_matches('/')))(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Rootfs) {
        let folder = tempfile::tempdir().unwrap();
        let root = Rootfs::open(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        (folder, root)
    }

    #[test]
    fn links_out_of_the_root_stay_inside() {
        let (folder, root) = root();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "secret of the host").unwrap();
        symlink(outside.path(), folder.path().join("etc/passwd")).unwrap();
        assert_eq!(root.read("/etc/passwd").unwrap(), None);
        symlink("../../../../../../etc/shadow", folder.path().join("etc/group")).unwrap();
        assert_eq!(root.read("/etc/group").unwrap(), None);
        symlink("/proc/self/root/etc/shadow", folder.path().join("etc/magic")).unwrap();
        assert_eq!(root.read("/etc/magic").unwrap(), None);
    }

    #[test]
    fn traps_are_not_files() {
        let (folder, root) = root();
        nix::unistd::mkfifo(&folder.path().join("etc/passwd"), nix::sys::stat::Mode::from_bits_truncate(0o666))
            .unwrap();
        assert_eq!(root.read("/etc/passwd").unwrap(), None);
        symlink("loop", folder.path().join("loop")).unwrap();
        assert_eq!(root.read("/loop").unwrap(), None);
        assert_eq!(root.read("/etc").unwrap(), None);
    }

    #[test]
    fn a_folder_has_its_place_unless_something_else_is_there() {
        let (folder, root) = root();
        let takes = || root.takes_folder("/mnt/shares").unwrap();
        assert!(takes(), "both can be made");
        symlink("/etc", folder.path().join("mnt")).unwrap();
        assert!(takes(), "a link to a folder");
        std::fs::write(folder.path().join("etc/shares"), "").unwrap();
        assert!(!takes());
        for target in ["nowhere", "mnt"] {
            std::fs::remove_file(folder.path().join("mnt")).unwrap();
            symlink(target, folder.path().join("mnt")).unwrap();
            assert!(!takes(), "{target}");
        }
        std::fs::remove_file(folder.path().join("mnt")).unwrap();
        std::fs::write(folder.path().join("mnt"), "").unwrap();
        assert!(!takes());
    }

    #[test]
    fn reading_is_bounded() {
        let (folder, root) = root();
        let file = File::create(folder.path().join("etc/passwd")).unwrap();
        file.set_len(1 << 30).unwrap();
        assert_eq!(root.read("/etc/passwd").unwrap().unwrap().len() as u64, MAX_READ_BYTES);
    }

    #[test]
    fn executables_are_named_by_what_they_lead_to() {
        let (folder, root) = root();
        let real = folder.path().join("systemd");
        std::fs::write(&real, "#!").unwrap();
        symlink("/systemd", folder.path().join("init")).unwrap();
        assert_eq!(root.executable("/init").unwrap(), None, "not executable yet");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(root.executable("/init").unwrap().as_deref(), Some("systemd"));
        assert_eq!(root.executable("/sbin/init").unwrap(), None);
    }
}
