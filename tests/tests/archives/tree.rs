//! A file system as a test compares it.

use anyhow::Result;
use hoody_protocol::image::Digest;
use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

/// What there is at each path below `root`.
pub(crate) fn listed(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut found)?;
    Ok(found)
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let about = fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        if let Some(text) = described(&path, &about)? {
            found.insert(name, text);
        }
        if about.is_dir() {
            walk(root, &path, found)?;
        }
    }
    Ok(())
}

/// `None`: of a kind that archives do not hold.
fn described(path: &Path, about: &Metadata) -> Result<Option<String>> {
    let kind = about.file_type();
    let what = if kind.is_dir() {
        "folder".to_owned()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(path)?.display())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else if kind.is_file() {
        let holes = if about.blocks() * 512 < about.len() { "sparse" } else { "whole" };
        let content = if about.len() < 1 << 24 { Digest::of(&fs::read(path)?).to_string() } else { String::new() };
        format!("{holes} file of {} with {} names, {content}", about.len(), about.nlink())
    } else {
        return Ok(None);
    };
    let mut attributes: Vec<String> = Vec::new();
    if !kind.is_symlink() {
        for name in xattr::list(path)? {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("user.") || name == "security.capability" {
                attributes.push(format!("{name}={:?}", xattr::get(path, &name)?));
            }
        }
    }
    attributes.sort();
    let (seconds, nanoseconds) = (about.mtime(), about.mtime_nsec());
    let (mode, owner, group) = (about.mode() & 0o7777, about.uid(), about.gid());
    Ok(Some(format!("{what}, {mode:o}, {owner}:{group}, {seconds}.{nanoseconds:09} {attributes:?}")))
}

/// Puts odd files below `folder`, as a tenant could have made them.
pub(crate) fn odd_files(folder: &Path) -> Result<()> {
    let at = |name: &str| folder.join(name);
    fs::create_dir_all(at("odd/sticky"))?;
    fs::set_permissions(at("odd/sticky"), fs::Permissions::from_mode(0o1777))?;
    fs::write(at("odd/setuid"), "#!/bin/sh\n")?;
    std::os::unix::fs::chown(at("odd/setuid"), Some(1000), Some(65_535))?;
    fs::set_permissions(at("odd/setuid"), fs::Permissions::from_mode(0o6755))?;
    fs::hard_link(at("odd/setuid"), at("odd/sticky/other name"))?;
    symlink("/etc/../../outside", at("odd/absolute link"))?;
    symlink("x".repeat(300), at("odd/long link"))?;
    fs::write(at("odd/.wh.not a whiteout"), "kept")?;
    fs::write(at(&format!("odd/{}", "ü".repeat(120))), "a long name")?;
    fs::create_dir_all(at(&format!("odd/{}", "deep/".repeat(60))))?;
    nix::unistd::mkfifo(&at("odd/fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640))?;
    // Left out.
    std::os::unix::net::UnixListener::bind(at("odd/socket"))?;
    fs::write(at("odd/attributes"), "x")?;
    xattr::set(at("odd/attributes"), "user.binary", b"a\nb\0c=d")?;
    // CAP_NET_RAW, permitted and effective, revision 2.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr::set(at("odd/attributes"), "security.capability", &capability)?;
    let sparse = fs::File::create(at("odd/sparse"))?;
    sparse.set_len(64 << 30)?;
    sparse.write_all_at(&[7; 4096], 32 << 30)?;
    fs::File::create(at("odd/all hole"))?.set_len(12_345)?;
    let old = std::time::SystemTime::UNIX_EPOCH - std::time::Duration::from_millis(1_300);
    fs::File::options().write(true).open(at("odd/all hole"))?.set_modified(old)?;
    Ok(())
}
