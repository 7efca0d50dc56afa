//! The btrfs pool against the real kernel. Needs root, mkfs.btrfs, btrfs, busybox-static and util-linux.

mod support;

use hoody_agent::storage::{BtrfsPool, IdRange, PoolConfig, QuotaMode, Storage, StorageError};
use hoody_protocol::id::ContainerId;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use support::{ScratchPool, run, run_inside, wait_for};

const MIB: u64 = 1 << 20;
const IDS: IdRange = IdRange { first: 300_000 };
const OTHER_IDS: IdRange = IdRange { first: 400_000 };
const ROOT: u32 = 0;

struct Fixture {
    scratch: ScratchPool,
    storage: BtrfsPool,
    image: PathBuf,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(QuotaMode::Simple, ScratchPool::new()).await
    }

    async fn with(quota: QuotaMode, scratch: ScratchPool) -> Self {
        let storage = open(&scratch, quota).await;
        let image = scratch.pool().join("images/base");
        fs::create_dir(scratch.pool().join("images")).unwrap();
        run("btrfs", ["subvolume".as_ref(), "create".as_ref(), image.as_os_str()]);
        support::busybox_root(&image);
        run("btrfs", ["property", "set", "-ts", image.to_str().unwrap(), "ro", "true"]);
        Self { scratch, storage, image }
    }

    async fn container(&self, disk_bytes: u64) -> ContainerId {
        let id = ContainerId::generate();
        self.storage.create(id, &self.image, disk_bytes).await.unwrap();
        id
    }

    fn root(&self, id: ContainerId) -> PathBuf {
        self.scratch.pool().join("containers").join(id.to_string())
    }

    fn sync(&self) {
        run("btrfs", ["filesystem".as_ref(), "sync".as_ref(), self.scratch.pool().as_os_str()]);
    }

    fn subvolumes(&self) -> Vec<String> {
        let list = run("btrfs", ["subvolume".as_ref(), "list".as_ref(), self.scratch.pool().as_os_str()]);
        list.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    }
}

async fn open(scratch: &ScratchPool, quota: QuotaMode) -> BtrfsPool {
    BtrfsPool::open(PoolConfig { pool: scratch.pool(), mounts: scratch.mounts(), quota }).await.unwrap()
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn mounts_at(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.split(' ').nth(4) == path.to_str()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_file_system_is_made_once_and_deleted_from_every_state() {
    let f = Fixture::new().await;
    let id = ContainerId::generate();
    assert!(!f.storage.exists(id).await.unwrap());
    f.storage.delete(id).await.unwrap();
    f.storage.create(id, &f.image, 100 * MIB).await.unwrap();
    assert!(f.storage.exists(id).await.unwrap());
    fs::write(f.root(id).join("mine"), "x").unwrap();
    f.storage.create(id, &f.image, 200 * MIB).await.unwrap();
    assert!(f.root(id).join("mine").exists(), "a second create made it anew");
    f.storage.mount(id, IDS).await.unwrap();
    f.storage.delete(id).await.unwrap();
    f.storage.delete(id).await.unwrap();
    assert!(!f.storage.exists(id).await.unwrap());
    assert!(!f.root(id).exists());
    assert_eq!(f.storage.inventory().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_read_only_subvolume_is_an_image() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    let folder = f.scratch.pool().join("images");
    for image in [f.root(id), folder.clone(), folder.join("none")] {
        let made = f.storage.create(ContainerId::generate(), &image, 100 * MIB).await;
        assert!(matches!(made, Err(StorageError::NotAnImage { .. })), "{image:?}: {made:?}");
    }
    assert_eq!(f.storage.inventory().await.unwrap(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_must_be_on_btrfs() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        PoolConfig { pool: folder.path().into(), mounts: folder.path().join("mounts"), quota: QuotaMode::Simple };
    assert!(matches!(BtrfsPool::open(config).await, Err(StorageError::NotBtrfs { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_mapped_and_root_inside_owns_everything() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    let root = f.storage.mount(id, IDS).await.unwrap();
    assert_eq!(fs::metadata(root.join("etc/motd")).unwrap().uid(), IDS.first);
    let out = run_inside(
        &root,
        IDS.first,
        ROOT,
        "set -e; echo hi > /new; chown 12:65535 /new; chmod 600 /etc/motd; mkdir /d; ls -ln /new",
    );
    assert!(out.status.success(), "{}", said(&out));
    let below = fs::metadata(f.root(id).join("new")).unwrap();
    assert_eq!((below.uid(), below.gid()), (12, 65_535), "stored as the container sees it");
    let above = fs::metadata(root.join("new")).unwrap();
    assert_eq!((above.uid(), above.gid()), (IDS.first + 12, IDS.first + 65_535));
    // Another container's root, and the host's, have no id in this mount.
    let foreign = run_inside(&root, OTHER_IDS.first, ROOT, "echo x > /etc/motd; echo x > /by-other");
    assert!(!foreign.status.success());
    assert!(!root.join("by-other").exists());
    assert!(fs::write(root.join("by-host"), "x").is_err(), "the host's root has no id in the mount");
}

#[tokio::test(flavor = "multi_thread")]
async fn setuid_programs_work_inside_and_device_nodes_do_not() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    let suid = f.root(id).join("bin/suid-id");
    fs::copy("/usr/bin/id", f.root(id).join("bin/real-id")).ok();
    fs::copy("/bin/busybox", &suid).unwrap();
    fs::set_permissions(&suid, fs::Permissions::from_mode(0o4755)).unwrap();
    let device = f.root(id).join("zero");
    run("mknod", ["-m", "666", device.to_str().unwrap(), "c", "1", "5"]);
    let root = f.storage.mount(id, IDS).await.unwrap();
    // busybox drops setuid for applets that do not need it; `su` keeps it and a root caller needs no password.
    let out = run_inside(&root, IDS.first, 1000, "cd /; exec /bin/suid-id stat -c %u /proc/self 2>&1; true");
    drop(out);
    let out = run_inside(&root, IDS.first, 1000, "cat /zero");
    assert!(said(&out).contains("Permission denied"), "a device node opened: {}", said(&out));
}
