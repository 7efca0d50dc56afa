//! Archives that no export makes.

use anyhow::Result;
use hoody_protocol::{
    export::{Manifest, VERSION},
    image::Digest,
};
use serde_json::json;

/// One member.
pub(crate) type Member = Vec<u8>;

fn header(name: &str, kind: tar::EntryType, size: u64, link: &str) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn member(mut header: tar::Header, content: &[u8]) -> Member {
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(crate) fn file(name: &str, content: &[u8]) -> Member {
    member(header(name, tar::EntryType::Regular, content.len() as u64, ""), content)
}

fn special(name: &str, kind: tar::EntryType, link: &str) -> Member {
    member(header(name, kind, 0, link), b"")
}

fn document(storage_mb: u64) -> Member {
    let document = json!({
        "version": VERSION, "name": "crafted", "image": "nothing", "architecture": "amd64", "runtime": "lxc",
        "specs": { "cpu_cores": 0.1, "memory_mb": 32, "storage_mb": storage_mb },
    });
    file("container.json", document.to_string().as_bytes())
}

fn plain(members: &[Member], storage_mb: u64) -> Vec<u8> {
    let mut bytes = [vec![document(storage_mb)], members.to_vec()].concat().concat();
    let manifest = Manifest {
        version: VERSION,
        bytes: bytes.len() as u64,
        digest: Digest::of(&bytes),
        entries: members.len() as u64,
        left_out: 0,
    };
    bytes.extend(file("manifest.json", json!(manifest).to_string().as_bytes()));
    bytes.extend([0; 1024]);
    bytes
}

/// An archive that is whole.
pub(crate) fn archive(members: &[Member], storage_mb: u64) -> Result<Vec<u8>> {
    Ok(zstd::encode_all(&plain(members, storage_mb)[..], 1)?)
}

/// What the control plane refuses when it has read it.
pub(crate) fn refused_at_once() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let whole = plain(&[file("rootfs/a", &[b'a'; 70_000])], 64);
    let compressed = zstd::encode_all(&whole[..], 1)?;
    let mut flipped = whole.clone();
    flipped[2000] ^= 1;
    let mut owner = header("rootfs/a", tar::EntryType::Regular, 0, "");
    owner.set_uid(100_000);
    Ok(vec![
        ("nothing", Vec::new()),
        ("garbage", b"garbage".to_vec()),
        ("cut off", compressed[..compressed.len() / 2].to_vec()),
        ("another content", zstd::encode_all(&flipped[..], 1)?),
        ("no manifest", zstd::encode_all(&whole[..whole.len() - 2048], 1)?),
        ("no document", zstd::encode_all(&whole[1024..], 1)?),
        ("dots", archive(&[file("rootfs/../../etc/passwd", b"x")], 64)?),
        ("absolute", archive(&[file("/etc/passwd", b"x")], 64)?),
        ("a foreign setuid", archive(&[member(owner, b"")], 64)?),
    ])
}

/// What only the node finds when it unpacks it.
pub(crate) fn refused_by_the_node() -> Result<Vec<(&'static str, Vec<u8>)>> {
    use tar::EntryType::{Link, Symlink};
    Ok(vec![
        ("a hard link out", archive(&[special("rootfs/a", Link, "rootfs/../../etc/passwd")], 64)?),
        ("a hard link elsewhere", archive(&[special("rootfs/a", Link, "container.json")], 64)?),
        (
            "through a link",
            archive(
                &[
                    special("rootfs/up", Symlink, "/rootfs/../../.."),
                    file("rootfs/up", b"x"),
                    file("rootfs/up/b", b"x"),
                ],
                64,
            )?,
        ),
    ])
}

/// What is harmless when it is unpacked.
pub(crate) fn harmless() -> Result<Vec<u8>> {
    use tar::EntryType::{Block, Directory, Symlink};
    let folder = |name| special(name, Directory, "");
    archive(
        &[
            folder("rootfs/"),
            folder("rootfs/dev/"),
            special("rootfs/dev/sda", Block, ""),
            special("rootfs/passwd", Symlink, "/etc/passwd"),
        ],
        64,
    )
}
