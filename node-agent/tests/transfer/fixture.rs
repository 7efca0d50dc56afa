//! A pool with a source and a target side, and the comparison of two trees.

use crate::support::{ScratchPool, run};
use hoody_agent::storage::{BtrfsPool, Lineages, PoolConfig, QuotaMode, Room, StageError};
use hoody_protocol::{
    id::{ContainerId, TransferId},
    stream_digest::StreamDigest,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};
use tokio::io::AsyncReadExt;

pub const MIB: u64 = 1 << 20;
/// Room for a received file system, and for its stream, where a test does not say.
pub const ROOM: u64 = 256 * MIB;

pub struct Fixture {
    pub scratch: ScratchPool,
    _pool: BtrfsPool,
    pub source: Lineages,
    pub target: Lineages,
    pub container: ContainerId,
}

impl Fixture {
    pub async fn new() -> Self {
        let scratch = ScratchPool::new();
        let config = PoolConfig { pool: scratch.pool(), mounts: scratch.mounts(), quota: QuotaMode::Simple };
        let pool = BtrfsPool::open(config).await.unwrap();
        for side in ["source", "target"] {
            fs::create_dir(scratch.pool().join(side)).unwrap();
        }
        let (source, target) = (open(&scratch, "source").await, open(&scratch, "target").await);
        let fixture = Self { scratch, _pool: pool, source, target, container: ContainerId::generate() };
        run("btrfs", ["subvolume".as_ref(), "create".as_ref(), fixture.root().as_os_str()]);
        fixture
    }

    /// The file system that is sent.
    pub fn root(&self) -> PathBuf {
        self.scratch.pool().join("root")
    }

    /// Where a transfer is on the target, once it is complete.
    pub fn received(&self, transfer: TransferId) -> PathBuf {
        self.target.path(self.container, transfer)
    }

    /// What the target holds of the container, complete or not.
    pub fn held(&self) -> Vec<String> {
        let folder = self.scratch.pool().join("target/transfers").join(self.container.to_string());
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Keeps the root as it is and gives its stream.
    pub async fn stream(&self, base: Option<TransferId>) -> (TransferId, Vec<u8>) {
        let transfer = TransferId::generate();
        self.source.keep(self.container, transfer, &self.root()).await.unwrap();
        (transfer, self.sent(transfer, base).await)
    }

    pub async fn sent(&self, transfer: TransferId, base: Option<TransferId>) -> Vec<u8> {
        let mut sending = self.source.send(self.container, transfer, base).await.unwrap();
        let mut stream = Vec::new();
        sending.output.read_to_end(&mut stream).await.unwrap();
        sending.ended.await.unwrap().unwrap();
        stream
    }

    /// Receives a stream, as much room as there may be.
    pub async fn receive(
        &self,
        transfer: TransferId,
        base: Option<TransferId>,
        stream: &[u8],
    ) -> Result<PathBuf, StageError> {
        self.receive_within(transfer, base, stream, Room::of(ROOM)).await
    }

    pub async fn receive_within(
        &self,
        transfer: TransferId,
        base: Option<TransferId>,
        stream: &[u8],
        room: Room,
    ) -> Result<PathBuf, StageError> {
        let mut staging = self.target.stage(self.container, transfer, base, room).await?;
        for piece in stream.chunks(100_000) {
            staging.write(piece).await?;
        }
        staging.finish(stream.len() as u64, StreamDigest::of(stream)).await
    }

    pub async fn copy(&self, base: Option<TransferId>) -> TransferId {
        let (transfer, stream) = self.stream(base).await;
        self.receive(transfer, base, &stream).await.unwrap();
        transfer
    }
}

pub async fn open(scratch: &ScratchPool, side: &str) -> Lineages {
    Lineages::open(&scratch.pool().join(side), env!("CARGO_BIN_EXE_hoody-agent").into()).await.unwrap()
}

/// Everything of a tree that a copy must have: by path, kind, mode, owner, size, times, links, attributes, content.
pub fn tree(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    walk(top, top, &mut found);
    found
}

fn walk(top: &Path, path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let data = fs::symlink_metadata(path).unwrap();
    let mut says = format!(
        "mode {:o} owner {}:{} links {} device {} modified {}.{}",
        data.mode(),
        data.uid(),
        data.gid(),
        if data.is_dir() { 0 } else { data.nlink() },
        data.rdev(),
        data.mtime(),
        data.mtime_nsec()
    );
    for name in xattr::list(path).unwrap() {
        let value = xattr::get(path, &name).unwrap().unwrap();
        says += &format!(" {}={}", name.display(), hex::encode(value));
    }
    if data.is_file() {
        says += &format!(" size {} content {}", data.len(), StreamDigest::of(&fs::read(path).unwrap()));
    } else if data.is_symlink() {
        says += &format!(" target {}", hex::encode(fs::read_link(path).unwrap().as_os_str().as_bytes()));
    }
    found.insert(path.strip_prefix(top).unwrap().to_owned(), says);
    if data.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(top, &entry.unwrap().path(), found);
        }
    }
}

/// Fails with what differs.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (tree(left), tree(right));
    for (path, says) in &left {
        assert_eq!(Some(says), right.get(path), "{}", path.display());
    }
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
}

/// Bytes that look like nothing else.
pub fn content(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}
