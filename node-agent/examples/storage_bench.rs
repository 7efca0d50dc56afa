//! Prints what the pool's steps take, with each kind of quota: `cargo run --release --example storage_bench`,
//! as root. The pool is a sparse file, so numbers of different machines do not compare.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

#[path = "../tests/support/mod.rs"]
mod support;

use hoody_agent::storage::{BtrfsPool, IdRange, PoolConfig, QuotaMode, Storage};
use hoody_protocol::id::ContainerId;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use support::{ScratchPool, run};

const CONTAINERS: u32 = 60;
const DISK_BYTES: u64 = 1 << 30;
const IMAGE_FILES: u32 = 5000;
const FILE_BYTES: usize = 20_000;
const CLEANING_DEADLINE: Duration = Duration::from_secs(120);
/// What each container writes.
const WRITTEN_BYTES: usize = 1 << 20;

#[tokio::main]
async fn main() {
    for quota in [QuotaMode::Simple, QuotaMode::Full] {
        bench(quota).await;
    }
}

async fn bench(quota: QuotaMode) {
    let scratch = ScratchPool::new();
    let storage = BtrfsPool::open(PoolConfig { pool: scratch.pool(), mounts: scratch.mounts(), quota }).await.unwrap();
    let image = scratch.pool().join("image");
    make_image(&image);
    let sync = || run("btrfs", ["filesystem".as_ref(), "sync".as_ref(), scratch.pool().as_os_str()]);
    sync();
    println!("{quota:?} quotas, image of {IMAGE_FILES} files, {CONTAINERS} containers");
    let [mut create, mut mount, mut write, mut usage, mut unmount, mut delete] = [const { Vec::new() }; 6];
    let ids: Vec<_> = (0..CONTAINERS).map(|_| ContainerId::generate()).collect();
    for (id, n) in ids.iter().zip(2..) {
        timed(&mut create, storage.create(*id, &image, DISK_BYTES)).await.unwrap();
        timed(&mut mount, storage.mount(*id, IdRange { first: n * IdRange::LENGTH })).await.unwrap();
    }
    for id in &ids {
        let path = scratch.pool().join("containers").join(id.to_string()).join("data");
        timed(&mut write, async { fs::write(path, vec![7; WRITTEN_BYTES]) }).await.unwrap();
        timed(&mut usage, storage.usage(*id)).await.unwrap();
    }
    let start = Instant::now();
    sync();
    let commit = start.elapsed();
    for id in &ids {
        timed(&mut unmount, storage.unmount(*id)).await.unwrap();
        timed(&mut delete, storage.delete(*id)).await.unwrap();
    }
    for (name, times) in [
        ("create", create),
        ("mount", mount),
        ("write 1 MiB", write),
        ("usage", usage),
        ("unmount", unmount),
        ("delete", delete),
    ] {
        print(name, times);
    }
    println!("  commit after writing  {commit:?}");
    let start = Instant::now();
    let listed = || run("btrfs", ["subvolume".as_ref(), "list".as_ref(), "-d".as_ref(), scratch.pool().as_os_str()]);
    while !listed().is_empty() && start.elapsed() < CLEANING_DEADLINE {
        sync();
    }
    println!("  space back after deletion  {:?}, left {}", start.elapsed(), listed().lines().count());
}

async fn timed<T>(times: &mut Vec<Duration>, step: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = step.await;
    times.push(start.elapsed());
    result
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("  {name:<12} p50 {:>10.3?}  p95 {:>10.3?}", times[times.len() / 2], times[times.len() * 95 / 100]);
}

fn make_image(image: &Path) {
    run("btrfs", ["subvolume".as_ref(), "create".as_ref(), image.as_os_str()]);
    for n in 0..IMAGE_FILES {
        let folder = image.join(format!("{}", n % 100));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(n.to_string()), vec![n as u8; FILE_BYTES]).unwrap();
    }
    run("btrfs", ["property", "set", "-ts", image.to_str().unwrap(), "ro", "true"]);
}
