//! Files of every kind that a container can make, and the comparison of two folders of them.

use anyhow::{Context, Result, ensure};
use hoody_protocol::image::Digest;
use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
};

const MIB: usize = 1 << 20;

/// One of everything.
pub(crate) fn fill(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("deep/er"))?;
    fs::write(folder.join("deep/er/large"), noise(4 * MIB, 1))?;
    fs::hard_link(folder.join("deep/er/large"), folder.join("deep/linked"))?;
    symlink("/etc/shadow", folder.join("link"))?;
    let sparse = File::create(folder.join("sparse"))?;
    sparse.set_len(8 << 20)?;
    sparse.write_all_at(b"middle", 4 << 20)?;
    fs::write(folder.join("setuid"), "#!/bin/true")?;
    chown(folder.join("setuid"), Some(33), Some(44))?;
    fs::set_permissions(folder.join("setuid"), Permissions::from_mode(0o6751))?;
    fs::write(folder.join("noted"), "x")?;
    xattr::set(folder.join("noted"), "user.note", b"kept")?;
    chown(folder.join("deep"), Some(1000), Some(1001))?;
    fs::write(folder.join("state"), "one")?;
    Ok(())
}

/// Bytes that no compression makes less of.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut words = Vec::with_capacity(bytes + 8);
    while words.len() < bytes {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words.extend_from_slice(&state.to_le_bytes());
    }
    words.truncate(bytes);
    words
}

/// Fails with what differs.
pub(crate) fn same(left: &Path, right: &Path) -> Result<()> {
    let (left, right) = (tree(left)?, tree(right)?);
    for (path, says) in &left {
        ensure!(right.get(path) == Some(says), "{}: {says}, {:?}", path.display(), right.get(path));
    }
    ensure!(left.len() == right.len(), "{:?} and {:?}", left.keys(), right.keys());
    ensure!(left.len() > 8, "nothing was compared: {:?}", left.keys());
    Ok(())
}

/// Kind, mode, owner, size, time, links, attributes and content of each.
pub(crate) fn tree(top: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let data = fs::symlink_metadata(&path)?;
            let links = if data.is_dir() { 0 } else { data.nlink() };
            let mut says = format!(
                "mode {:o} owner {}:{} links {links} modified {}.{}",
                data.mode(),
                data.uid(),
                data.gid(),
                data.mtime(),
                data.mtime_nsec()
            );
            for name in xattr::list(&path)? {
                says += &format!(" {}={:?}", name.display(), xattr::get(&path, &name)?);
            }
            if data.is_file() {
                says += &format!(" size {} content {}", data.len(), Digest::of(&fs::read(&path)?));
            } else if data.is_symlink() {
                says += &format!(" to {:?}", fs::read_link(&path)?.as_os_str().as_bytes());
            } else {
                folders.push(path.clone());
            }
            found.insert(path.strip_prefix(top)?.to_owned(), says);
        }
    }
    Ok(found)
}
