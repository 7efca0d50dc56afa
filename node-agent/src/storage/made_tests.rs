//! What is made is removed, and nothing else is.

use super::*;
use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt, symlink},
    },
};

struct Root {
    folder: tempfile::TempDir,
    top: OwnedFd,
}

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("srv/real")).unwrap();
        let top = fs::File::open(folder.path()).unwrap().into();
        Self { folder, top }
    }

    fn at(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    fn make(&self, path: &str) -> nix::Result<()> {
        make(self.top.as_fd(), path, |at| !at.starts_with("/proc"))
    }

    fn remove_unused(&self) -> bool {
        remove_unused(self.top.as_fd()).unwrap()
    }
}

#[test]
fn what_was_made_is_removed_and_what_was_there_is_not() {
    let root = Root::new();
    let as_the_agent = || {
        unshare(CloneFlags::CLONE_FS).unwrap();
        umask(Mode::from_bits_truncate(0o077));
        root.make("/srv/a/b").unwrap();
    };
    std::thread::scope(|scope| scope.spawn(as_the_agent).join()).unwrap();
    let made = fs::metadata(root.at("srv/a/b")).unwrap();
    assert_eq!((made.permissions().mode() & 0o7777, made.uid(), made.gid()), (0o755, 0, 0));
    assert_eq!(paths(root.top.as_fd()).unwrap(), [PathBuf::from("srv/a"), PathBuf::from("srv/a/b")]);
    assert_eq!(root.make("/srv/a/b"), Ok(()), "it is there");
    assert!(!root.remove_unused());
    assert!(!root.at("srv/a").exists() && root.at("srv/real").exists());
    assert!(paths(root.top.as_fd()).unwrap().is_empty());
    root.make("/srv/real").unwrap();
    root.remove_unused();
    assert!(root.at("srv/real").exists(), "it was there before");
}

#[test]
fn what_the_tenant_has_taken_is_the_tenants() {
    let root = Root::new();
    for path in ["/srv/filled", "/srv/replaced", "/srv/moved", "/srv/linked"] {
        root.make(path).unwrap();
    }
    fs::write(root.at("srv/filled/file"), "x").unwrap();
    // Beside the other before that goes, or it could have the same inode.
    fs::create_dir(root.at("srv/new")).unwrap();
    fs::remove_dir(root.at("srv/replaced")).unwrap();
    fs::rename(root.at("srv/new"), root.at("srv/replaced")).unwrap();
    fs::rename(root.at("srv/moved"), root.at("srv/elsewhere")).unwrap();
    fs::rename(root.at("srv/linked"), root.at("srv/real/linked")).unwrap();
    symlink("real/linked", root.at("srv/linked")).unwrap();
    // Above it a link: what is there is no longer where it was made.
    root.make("/srv/above/below").unwrap();
    fs::rename(root.at("srv/above"), root.at("srv/away")).unwrap();
    symlink("away", root.at("srv/above")).unwrap();
    assert!(!root.remove_unused());
    for kept in ["srv/away/below", "srv/filled/file", "srv/replaced", "srv/elsewhere", "srv/linked", "srv/real/linked"]
    {
        assert!(root.at(kept).exists(), "{kept}");
    }
    // It stays theirs when it is empty again.
    fs::remove_file(root.at("srv/filled/file")).unwrap();
    root.remove_unused();
    assert!(root.at("srv/filled").exists());
}

#[test]
fn links_lead_nowhere_but_inside_and_not_to_what_is_closed() {
    let root = Root::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(root.at("proc")).unwrap();
    symlink("/srv/real", root.at("srv/link")).unwrap();
    symlink(outside.path(), root.at("srv/out")).unwrap();
    symlink("../../../../../../srv", root.at("srv/up")).unwrap();
    symlink("/proc", root.at("srv/proc")).unwrap();
    symlink("nowhere", root.at("srv/dangling")).unwrap();
    root.make("/srv/link/x").unwrap();
    root.make("/srv/up/y").unwrap();
    assert!(root.at("srv/real/x").is_dir() && root.at("srv/y").is_dir());
    assert_eq!(root.make("/srv/proc/x"), Err(Errno::EPERM));
    for path in ["/srv/dangling", "/srv/dangling/x", "/srv/out", "/srv/out/x"] {
        assert_eq!(root.make(path), Err(Errno::EEXIST), "{path}");
    }
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none() && !root.at("proc/x").exists());
    root.remove_unused();
    assert!(!root.at("srv/real/x").exists() && !root.at("srv/y").exists(), "found without links");
}

#[test]
fn what_cannot_be_written_down_is_not_made() {
    let root = Root::new();
    let long = format!("/srv/{}", "x".repeat(200));
    let mut made = 0;
    let refused = (0..2000).find_map(|number| {
        made = number;
        root.make(&format!("{long}{number}")).err()
    });
    assert_eq!(refused, Some(Errno::ENOSPC));
    assert_eq!(fs::read_dir(root.at("srv")).unwrap().count(), made + 1, "and srv/real");
    root.remove_unused();
    assert_eq!(fs::read_dir(root.at("srv")).unwrap().count(), 1);
}
