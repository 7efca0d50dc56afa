//! A whole file system: every kind of file arrives as it was.

use crate::{
    fixture::{Fixture, MIB, assert_same, content, tree},
    support::run,
};
use hoody_agent::storage::{Room, StageError};
use hoody_protocol::{id::TransferId, stream_digest::StreamDigest};
use std::{
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, chown, symlink},
    },
    path::Path,
};

/// One of everything that a container can make.
pub fn fill(root: &Path) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("deep/er/large"), content(5 << 20, 1)).unwrap();
    fs::write(root.join("deep/empty"), "").unwrap();
    fs::hard_link(root.join("deep/er/large"), root.join("deep/linked")).unwrap();
    symlink("/etc/shadow", root.join("absolute")).unwrap();
    symlink("../../outside", root.join("deep/relative")).unwrap();
    let sparse = File::create(root.join("holes")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(b"middle", 4 << 20).unwrap();
    fs::write(root.join("setuid"), "#!/bin/true").unwrap();
    chown(root.join("setuid"), Some(33), Some(44)).unwrap();
    fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::write(root.join("capable"), "x").unwrap();
    run("setcap", ["cap_net_bind_service=ep", root.join("capable").to_str().unwrap()]);
    fs::write(root.join("attributes"), "x").unwrap();
    xattr::set(root.join("attributes"), "user.note", b"kept").unwrap();
    chown(root.join("deep"), Some(1000), Some(1001)).unwrap();
    run("mkfifo", [root.join("fifo")]);
    run("mknod", [root.join("whiteout").to_str().unwrap(), "c", "0", "0"]);
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not \xff utf-8\n")), "x").unwrap();
    // Parts of files that are shared with other files of the same tree.
    run(
        "cp",
        ["--reflink=always", root.join("deep/er/large").to_str().unwrap(), root.join("shared").to_str().unwrap()],
    );
    fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap();
    File::open(root.join("deep/empty")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_file_arrives() {
    let f = Fixture::new().await;
    fill(&f.root());
    let (transfer, stream) = f.stream(None).await;
    let measured = f.source.measure(f.container, transfer, None).await.unwrap();
    let sent = stream.len() as u64;
    assert!(measured >= sent * 9 / 10 && measured <= sent * 11 / 10, "measured {measured}, sent {sent}");
    // What is sent is what was kept, not what became of it since.
    let before = tree(&f.root());
    fs::write(f.root().join("later"), "x").unwrap();
    let received = f.receive(transfer, None, &stream).await.unwrap();
    assert_eq!(received, f.received(transfer));
    assert_eq!(tree(&received), before);
    assert!(fs::write(received.join("x"), "x").is_err(), "what was received is not read-only");
    assert_eq!(f.held(), [transfer.to_string()]);
    assert!(f.target.has(f.container, transfer).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_stays_as_it_was_first_kept() {
    let f = Fixture::new().await;
    fs::write(f.root().join("file"), "before").unwrap();
    let (transfer, stream) = f.stream(None).await;
    fs::write(f.root().join("file"), "after").unwrap();
    f.source.keep(f.container, transfer, &f.root()).await.unwrap();
    assert_eq!(f.sent(transfer, None).await, stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_which_something_is_missing_is_not_kept() {
    let f = Fixture::new().await;
    fill(&f.root());
    let (transfer, stream) = f.stream(None).await;
    let whole = StreamDigest::of(&stream);
    for end in [10, 100, stream.len() / 2, stream.len() - 1] {
        let mut staging = f.target.stage(f.container, transfer, None, Room::of(256 * MIB)).await.unwrap();
        staging.write(&stream[..end]).await.unwrap();
        let ended = staging.finish(stream.len() as u64, whole).await;
        assert!(ended.is_err(), "{end} bytes were taken for all");
        assert!(!f.target.has(f.container, transfer).await.unwrap());
    }
    // One bit of a file's content is another: every command is right, the digest is not.
    let mut changed = stream.clone();
    let at = changed.windows(64).position(|window| window == &content(64, 1)[..]).unwrap();
    changed[at] ^= 1;
    let mut staging = f.target.stage(f.container, transfer, None, Room::of(256 * MIB)).await.unwrap();
    staging.write(&changed).await.unwrap();
    let ended = staging.finish(stream.len() as u64, whole).await;
    assert!(matches!(ended, Err(StageError::Digest { .. })), "{ended:?}");
    assert!(!f.target.has(f.container, transfer).await.unwrap());
    f.receive(transfer, None, &stream).await.unwrap();
    assert_same(&f.root(), &f.received(transfer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_a_writable_snapshot_of_what_was_received() {
    use hoody_agent::storage::{BtrfsPool, PoolConfig, QuotaMode, Storage};
    let f = Fixture::new().await;
    fs::write(f.root().join("file"), "x").unwrap();
    let transfer = f.copy(None).await;
    let pool = f.scratch.pool().join("target");
    let config = PoolConfig { pool: pool.clone(), mounts: f.scratch.mounts(), quota: QuotaMode::Simple };
    let storage = BtrfsPool::open(config).await.unwrap();
    storage.create(f.container, &f.received(transfer), 64 * MIB).await.unwrap();
    let root = pool.join("containers").join(f.container.to_string());
    fs::write(root.join("file"), "changed").unwrap();
    assert_eq!(fs::read_to_string(f.received(transfer).join("file")).unwrap(), "x");
    // On to a third place, and from there once more: a copy of a copy.
    let next = TransferId::generate();
    f.source.keep(f.container, next, &root).await.unwrap();
    let stream = f.sent(next, None).await;
    f.receive(next, None, &stream).await.unwrap();
    assert_same(&root, &f.received(next));
}
