use super::*;
use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

fn packed(root: &std::path::Path) -> (Manifest, Vec<u8>) {
    pack::pack(root, b"{\"version\":1}", Vec::new(), 1 << 30).unwrap()
}

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("etc/empty")).unwrap();
    fs::write(at("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::set_permissions(at("etc/hosts"), fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("/nowhere", at("etc/link")).unwrap();
    fs::hard_link(at("etc/hosts"), at("etc/same")).unwrap();
    fs::write(at(&"n".repeat(200)), "long").unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    root
}

#[test]
fn ordinary_programs_read_what_is_packed() {
    let root = tree();
    let (manifest, bytes) = packed(root.path());
    assert_eq!(manifest.left_out, 1, "the socket");
    assert_eq!(manifest.digest, hoody_protocol::image::Digest::of(&bytes[..manifest.bytes as usize]));
    let mut archive = ::tar::Archive::new(&bytes[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        if name == "rootfs/etc/hosts" || name == "rootfs/etc/same" {
            let header = entry.header();
            assert!(header.entry_type().is_hard_link() || header.mode().unwrap() == 0o4750);
        }
        if name == "manifest.json" {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        }
        names.push(name);
    }
    assert_eq!(names.len() as u64, manifest.entries + 2);
    assert_eq!((names[0].as_str(), names[1].as_str()), ("container.json", "rootfs/"));
    assert_eq!(names.last().unwrap(), "manifest.json");
    assert!(names.contains(&format!("rootfs/{}", "n".repeat(200))));
}

#[test]
fn holes_are_not_written_out() {
    let root = tempfile::tempdir().unwrap();
    let mut file = File::create(root.path().join("sparse")).unwrap();
    file.set_len(1 << 37).unwrap();
    file.seek(SeekFrom::Start(1 << 30)).unwrap();
    std::io::Write::write_all(&mut file, &[1; 8192]).unwrap();
    assert!(file.metadata().unwrap().blocks() < 1000, "the folder for tests is on a file system without holes");
    let (_, bytes) = packed(root.path());
    assert!(bytes.len() < 200_000, "{} bytes", bytes.len());
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("GNU.sparse.realsize=137438953472"));
}

#[test]
fn what_cannot_be_restored_is_named() {
    let root = tempfile::tempdir().unwrap();
    let mut deep = root.path().to_owned();
    for _ in 0..MAX_TEST_DEPTH {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    let refused = pack::pack(root.path(), b"{}", Vec::new(), 1 << 30).unwrap_err();
    assert!(matches!(refused, PackError::Path(_)), "{refused}");
    let refused = pack::pack(tree().path(), b"{}", Vec::new(), 3000).unwrap_err();
    assert!(matches!(refused, PackError::TooLarge(3000)), "{refused}");
}

/// One more than is taken.
const MAX_TEST_DEPTH: usize = 252;

#[tokio::test]
async fn whoever_stops_reading_ends_it() {
    let root = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..4 << 20).map(|_| rand::random()).collect();
    fs::write(root.path().join("noise"), noise).unwrap();
    let Packing { mut pieces, ended } = start(root.path().to_owned(), b"{}".to_vec()).unwrap();
    assert!(pieces.recv().await.is_some());
    drop(pieces);
    assert!(matches!(ended.await.unwrap(), Err(PackError::Output(_))));
}
