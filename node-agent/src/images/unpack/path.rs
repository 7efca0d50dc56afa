//! Paths of archive entries, checked. Resolution is the kernel's, inside the root that the unpacker is
//! confined to, so that links cannot lead out; `..` is refused all the same.

use super::report::Refusal;
use std::{
    ffi::OsStr,
    hash::{DefaultHasher, Hasher},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Longest path in bytes, below the kernel's 4,096 with room for the root.
const MAX_PATH_BYTES: usize = 4000;
/// Longest name of one component, the kernel's `NAME_MAX`.
const MAX_NAME_BYTES: usize = 255;
/// Most components.
const MAX_DEPTH: usize = 256;

/// A path below the root: no `.`, no `..`, no empty component. Empty: the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryPath(Vec<Vec<u8>>);

impl EntryPath {
    /// Checks a path of an archive. A leading `/` means the root.
    pub(crate) fn parse(path: &[u8]) -> Result<Self, Refusal> {
        if path.contains(&0) {
            return Err(Refusal::Path);
        }
        let mut components = Vec::new();
        let mut bytes = 0;
        for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
            bytes += name.len() + 1;
            match name {
                b".." => return Err(Refusal::Path),
                _ if name.len() > MAX_NAME_BYTES || bytes > MAX_PATH_BYTES || components.len() == MAX_DEPTH => {
                    return Err(Refusal::PathTooLong);
                }
                _ => components.push(name.to_vec()),
            }
        }
        Ok(Self(components))
    }

    /// The same without its first component, where that is `folder`; `None` where it is elsewhere.
    pub(crate) fn inside(mut self, folder: &[u8]) -> Option<Self> {
        if self.0.first().is_none_or(|first| first != folder) {
            return None;
        }
        self.0.remove(0);
        Some(self)
    }

    /// The last component.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.0.last().map(Vec::as_slice)
    }

    /// Where it is, below `root`.
    pub(crate) fn below(&self, root: &Path) -> PathBuf {
        join(root, &self.0)
    }

    /// Its folder, below `root`.
    pub(crate) fn parent_below(&self, root: &Path) -> PathBuf {
        join(root, self.parent())
    }

    /// Every folder above it, the highest first, below `root`.
    pub(crate) fn folders_below(&self, root: &Path) -> impl Iterator<Item = PathBuf> {
        (1..=self.parent().len()).map(move |depth| join(root, &self.0[..depth]))
    }

    /// The path of `name` in the same folder.
    pub(crate) fn sibling(&self, name: &[u8]) -> Self {
        let mut components = self.parent().to_vec();
        components.push(name.to_vec());
        Self(components)
    }

    /// The folder it is in; the root's is the root.
    pub(crate) fn folder(&self) -> Self {
        Self(self.parent().to_vec())
    }

    /// The path of `name` inside it.
    pub(crate) fn child(&self, name: &OsStr) -> Self {
        let mut components = self.0.clone();
        components.push(name.as_bytes().to_vec());
        Self(components)
    }

    /// A short stand-in for the path, and for every folder above it.
    pub(crate) fn marks(&self) -> impl Iterator<Item = u64> {
        self.0.iter().scan(DefaultHasher::new(), |hasher, name| {
            hasher.write(name);
            hasher.write_u8(b'/');
            Some(hasher.finish())
        })
    }

    fn parent(&self) -> &[Vec<u8>] {
        &self.0[..self.0.len().saturating_sub(1)]
    }
}

fn join(root: &Path, components: &[Vec<u8>]) -> PathBuf {
    let mut path = root.to_owned();
    path.extend(components.iter().map(|name| OsStr::from_bytes(name)));
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (given, expected) in [
            ("a/b", "/r/a/b"),
            ("/etc/x", "/r/etc/x"),
            ("./a//./b/", "/r/a/b"),
            ("./", "/r"),
            ("a/.../b", "/r/a/.../b"),
        ] {
            assert_eq!(EntryPath::parse(given.as_bytes()).unwrap().below(Path::new("/r")), Path::new(expected));
        }
        for given in ["..", "a/../b", "/..", "a/..", "x\0y"] {
            assert_eq!(EntryPath::parse(given.as_bytes()), Err(Refusal::Path), "{given:?}");
        }
    }

    #[test]
    fn length_and_depth_are_bounded() {
        for (given, fits) in [
            ("x".repeat(255), true),
            ("x".repeat(256), false),
            ("x/".repeat(256), true),
            ("x/".repeat(257), false),
            (format!("{}/", "x".repeat(200)).repeat(19), true),
            (format!("{}/", "x".repeat(200)).repeat(20), false),
        ] {
            assert_eq!(EntryPath::parse(given.as_bytes()).is_ok(), fits, "{} bytes", given.len());
        }
    }

    #[test]
    fn marks_differ_by_component() {
        let last = |path: &str| EntryPath::parse(path.as_bytes()).unwrap().marks().last();
        assert_eq!(last("a/b"), last("/a/./b"));
        assert_ne!(last("a/b"), last("ab"));
        assert_eq!(EntryPath::parse(b"a/b").unwrap().marks().next(), last("a"));
    }
}
