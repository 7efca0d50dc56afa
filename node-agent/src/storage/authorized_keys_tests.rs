use super::*;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

const KEY: &str = "ssh-ed25519 AAAAone ann";
const OTHER: &str = "ssh-ed25519 AAAAtwo";

struct Root {
    folder: tempfile::TempDir,
    handle: File,
}

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let handle = File::open(folder.path()).unwrap();
        Self { folder, handle }
    }

    fn with_ssh() -> Self {
        let root = Self::new();
        fs::create_dir_all(root.path("root/.ssh")).unwrap();
        root
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    fn place(&self, key: Option<&str>) -> io::Result<()> {
        place(self.handle.as_fd(), key)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("root/.ssh/authorized_keys")).unwrap()
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.path("root/.ssh")).unwrap().count()
    }
}

#[test]
fn the_key_is_placed_changed_and_taken_out() {
    let root = Root::new();
    root.place(None).unwrap();
    assert!(!root.path("root").exists(), "nothing is made for no key");
    root.place(Some(KEY)).unwrap();
    assert_eq!(root.text(), format!("{KEY}{MARK}\n"));
    let mode = |path: &str| fs::metadata(root.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("root/.ssh"), mode("root/.ssh/authorized_keys")], [0o700, 0o600]);
    root.place(Some(OTHER)).unwrap();
    assert_eq!(root.text(), format!("{OTHER}{MARK}\n"));
    root.place(None).unwrap();
    assert_eq!((root.text().as_str(), root.entries()), ("", 1));
}

#[test]
fn what_others_wrote_stays() {
    let root = Root::with_ssh();
    let path = root.path("root/.ssh/authorized_keys");
    let foreign = "# mine\nssh-rsa AAAAmine me\n\n\u{fffd}no-pty ssh-rsa AAAAlast";
    fs::write(&path, foreign).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(0), Some(33)).unwrap();
    root.place(Some(KEY)).unwrap();
    assert_eq!(root.text(), format!("{foreign}\n{KEY}{MARK}\n"));
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.gid()), (0o640, 33));
    // Also where its owner moved the lines about and wrote behind them.
    fs::write(&path, format!("{KEY}{MARK}\n{KEY}{MARK}\r\nssh-rsa AAAAmine me\n")).unwrap();
    root.place(Some(OTHER)).unwrap();
    assert_eq!(root.text(), format!("ssh-rsa AAAAmine me\n{OTHER}{MARK}\n"));
    let inode = fs::metadata(&path).unwrap().ino();
    root.place(Some(OTHER)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "written though nothing changed");
}

#[test]
fn no_link_is_followed() {
    let outside = tempfile::tempdir().unwrap();
    let untouched = |path: &Path| fs::read_dir(path).unwrap().count() == 0;
    for (link, target) in [("root", ""), ("root/.ssh", "root")] {
        let root = Root::new();
        if !target.is_empty() {
            fs::create_dir(root.path(target)).unwrap();
        }
        symlink(outside.path(), root.path(link)).unwrap();
        assert!(root.place(Some(KEY)).is_err(), "{link}");
        assert!(untouched(outside.path()), "{link}");
    }
    let root = Root::with_ssh();
    let secret = outside.path().join("secret");
    fs::write(&secret, "the node's").unwrap();
    symlink(&secret, root.path("root/.ssh/authorized_keys")).unwrap();
    assert!(root.place(Some(KEY)).is_err());
    assert_eq!((fs::read_to_string(&secret).unwrap().as_str(), root.entries()), ("the node's", 1));
}

#[test]
fn traps_are_refused_and_nothing_is_left_behind() {
    let root = Root::with_ssh();
    let path = root.path("root/.ssh/authorized_keys");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    assert!(root.place(Some(KEY)).is_err());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(root.place(Some(KEY)).is_err());
    fs::remove_dir(&path).unwrap();
    fs::write(&path, vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
    assert!(root.place(Some(KEY)).is_err());
    assert_eq!((fs::metadata(&path).unwrap().len(), root.entries()), (MAX_BYTES + 1, 1));
}
