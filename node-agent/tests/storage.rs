//! The btrfs pool against the real kernel. Needs root, mkfs.btrfs, btrfs, busybox-static and util-linux.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "storage/snapshots.rs"]
mod snapshots;
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
        list.lines().filter(|line| line.starts_with("ID ")).map(str::to_owned).collect()
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
async fn of_the_hosts_users_only_the_containers_root_gets_to_its_files() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    let file = f.storage.mount(id, IDS).await.unwrap().join("etc/motd");
    let read_as = |user: u32| {
        let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()];
        std::process::Command::new("setpriv").args(ids).arg("cat").arg(&file).output().unwrap()
    };
    assert_eq!(said(&read_as(IDS.first)), "welcome\n");
    for stranger in [65_534, IDS.first + 1, OTHER_IDS.first] {
        assert!(said(&read_as(stranger)).contains("Permission denied"), "{stranger}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setuid_programs_work_inside_and_device_nodes_do_not() {
    // The pool lets device nodes work: it is the container's mount that must not.
    let f = Fixture::with(QuotaMode::Simple, ScratchPool::with_options("nosuid,noexec")).await;
    let id = f.container(100 * MIB).await;
    // busybox gives setuid up except for applets that need it: `su` asks no password where none is set.
    fs::write(f.root(id).join("etc/passwd"), "root::0:0::/:/bin/sh\nuser::1000:1000::/:/bin/sh\n").unwrap();
    fs::remove_file(f.root(id).join("bin/su")).unwrap();
    fs::copy("/bin/busybox", f.root(id).join("bin/su")).unwrap();
    fs::set_permissions(f.root(id).join("bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    let device = f.root(id).join("zero");
    run("mknod", ["-m", "666", device.to_str().unwrap(), "c", "1", "5"]);
    let root = f.storage.mount(id, IDS).await.unwrap();
    let out = run_inside(&root, IDS.first, 1000, "id -u; su -c 'id -u'");
    assert_eq!(said(&out), "1000\n0\n", "the pool's nosuid reached the container");
    let out = run_inside(&root, IDS.first, 1000, "dd if=/zero bs=1 count=1");
    assert!(said(&out).contains("Permission denied"), "a device node opened: {}", said(&out));
}

#[tokio::test(flavor = "multi_thread")]
async fn mounting_again_changes_nothing_and_unmounting_is_idempotent() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    f.storage.unmount(id).await.unwrap();
    let root = f.storage.mount(id, IDS).await.unwrap();
    assert_eq!(f.storage.mount(id, IDS).await.unwrap(), root);
    assert_eq!(mounts_at(&root), 1);
    // Also by an agent that was started anew.
    let again = open(&f.scratch, QuotaMode::Simple).await;
    assert_eq!(again.mount(id, IDS).await.unwrap(), root);
    assert_eq!(mounts_at(&root), 1);
    assert_eq!(mounts_at(&f.scratch.mounts()), 1, "the folder was bound onto itself twice");
    // Other ids: the mount of old is replaced.
    again.mount(id, OTHER_IDS).await.unwrap();
    assert_eq!(mounts_at(&root), 1);
    assert_eq!(fs::metadata(root.join("etc")).unwrap().uid(), OTHER_IDS.first);
    f.storage.unmount(id).await.unwrap();
    f.storage.unmount(id).await.unwrap();
    assert_eq!(mounts_at(&root), 0);
    assert!(!root.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_in_use_is_unmounted_and_its_container_deleted() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    let root = f.storage.mount(id, IDS).await.unwrap();
    let open_file = fs::File::open(root.join("etc/motd")).unwrap();
    f.storage.unmount(id).await.unwrap();
    assert_eq!(mounts_at(&root), 0);
    f.storage.mount(id, IDS).await.unwrap();
    f.storage.delete(id).await.unwrap();
    assert_eq!(f.storage.inventory().await.unwrap(), []);
    drop(open_file);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_the_host_and_missing_containers_are_refused() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    for first in [0, 1000, 65_535, u32::MAX - 65_534] {
        let mounted = f.storage.mount(id, IdRange { first }).await;
        assert!(matches!(mounted, Err(StorageError::InvalidIds { .. })), "{first}");
    }
    let none = ContainerId::generate();
    assert!(matches!(f.storage.mount(none, IDS).await, Err(StorageError::Missing { .. })));
    assert!(matches!(f.storage.usage(none).await, Err(StorageError::Missing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_reach_no_other_mount_namespace() {
    let scratch = ScratchPool::new();
    let folder = scratch.mounts().into_os_string();
    run("mount", ["--bind".as_ref(), folder.as_os_str(), folder.as_os_str()]);
    run("mount", ["--make-shared".as_ref(), folder.as_os_str()]);
    let f = Fixture::with(QuotaMode::Simple, scratch).await;
    let id = f.container(100 * MIB).await;
    // A namespace that receives whatever the host's mounts send.
    let mut other = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "slave", "--", "sh", "-c", "echo ready; exec cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let root = f.storage.mount(id, IDS).await.unwrap();
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", other.id())).unwrap();
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    drop(other.stdin.take());
    other.wait().unwrap();
    assert!(own.contains(root.to_str().unwrap()));
    assert!(!table.contains(root.to_str().unwrap()));
    let line = own.lines().find(|line| line.split(' ').nth(4) == root.to_str()).unwrap();
    assert!(line.contains("nodev") && !line.contains("nosuid") && line.contains("idmapped"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_one_image_do_not_see_each_other() {
    let f = Fixture::new().await;
    let (a, b) = (f.container(100 * MIB).await, f.container(100 * MIB).await);
    let (in_a, in_b) = (f.storage.mount(a, IDS).await.unwrap(), f.storage.mount(b, OTHER_IDS).await.unwrap());
    assert!(run_inside(&in_a, IDS.first, ROOT, "echo a > /etc/motd; echo a > /only-a").status.success());
    assert_eq!(fs::read_to_string(in_b.join("etc/motd")).unwrap(), "welcome\n");
    assert!(!in_b.join("only-a").exists());
    assert_eq!(fs::read_to_string(f.image.join("etc/motd")).unwrap(), "welcome\n");
    assert!(fs::write(f.image.join("x"), "").is_err(), "the image is writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_never_got_its_limit_is_no_container() {
    let f = Fixture::with(QuotaMode::Full, ScratchPool::new()).await;
    let id = ContainerId::generate();
    let half = f.scratch.pool().join("containers").join(format!(".unlimited-{id}"));
    run("btrfs", ["subvolume".as_ref(), "snapshot".as_ref(), f.image.as_os_str(), half.as_os_str()]);
    assert!(!f.storage.exists(id).await.unwrap());
    f.storage.create(id, &f.image, 50 * MIB).await.unwrap();
    assert!(!half.exists());
    assert_eq!(f.storage.usage(id).await.unwrap().total_bytes, 50 * MIB);
    run("btrfs", ["subvolume".as_ref(), "snapshot".as_ref(), f.image.as_os_str(), half.as_os_str()]);
    let again = open(&f.scratch, QuotaMode::Full).await;
    assert!(!half.exists());
    assert_eq!(again.inventory().await.unwrap(), [id]);
}

async fn disk_limit_holds(mode: QuotaMode) {
    let f = Fixture::with(mode, ScratchPool::new()).await;
    assert_eq!(f.storage.quota_mode(), mode);
    f.sync();
    let id = f.container(32 * MIB).await;
    f.sync();
    let fresh = f.storage.usage(id).await.unwrap();
    assert_eq!(fresh.total_bytes, 32 * MIB);
    assert!(fresh.used_bytes < MIB, "the image counts: {fresh:?}");
    let root = f.storage.mount(id, IDS).await.unwrap();
    fs::write(f.root(id).join("tmp/big"), vec![7; 10 << 20]).unwrap();
    f.sync();
    let used = f.storage.usage(id).await.unwrap().used_bytes;
    assert!((10 * MIB..12 * MIB).contains(&used), "{used}");
    let over = run_inside(&root, IDS.first, ROOT, "cat /tmp/big /tmp/big /tmp/big /tmp/big > /tmp/more");
    assert!(said(&over).contains("quota"), "wrote over the limit: {}", said(&over));
    f.sync();
    assert!(f.storage.usage(id).await.unwrap().used_bytes <= 33 * MIB);
    // At the limit one can still delete; a higher one opens again.
    assert!(run_inside(&root, IDS.first, ROOT, "rm /tmp/more").status.success());
    f.storage.create(id, &f.image, 80 * MIB).await.unwrap();
    f.sync();
    let out = run_inside(&root, IDS.first, ROOT, "cat /tmp/big /tmp/big /tmp/big /tmp/big > /tmp/more");
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(f.storage.usage(id).await.unwrap().total_bytes, 80 * MIB);
    // The mode stays what it is.
    let other = if mode == QuotaMode::Simple { QuotaMode::Full } else { QuotaMode::Simple };
    assert_eq!(open(&f.scratch, other).await.quota_mode(), mode);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_limit_holds_with_simple_quotas() {
    disk_limit_holds(QuotaMode::Simple).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_limit_holds_with_full_quotas() {
    disk_limit_holds(QuotaMode::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_subvolumes_go_with_their_container_whatever_marks_they_bear() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    let before = f.subvolumes().len();
    let at = |path: &str| f.root(id).join(path).into_os_string();
    let btrfs = |arguments: &[&std::ffi::OsStr]| run("btrfs", arguments);
    fs::create_dir_all(at("a/b/c")).unwrap();
    for path in ["one", "one/two", "a/b/c/three", "one/two/ four\nfive", "a/ro"] {
        btrfs(&["subvolume".as_ref(), "create".as_ref(), &at(path)]);
    }
    fs::write(at("a/ro/x"), "x").unwrap();
    btrfs(&["subvolume".as_ref(), "create".as_ref(), &at("a/ro/inner")]);
    btrfs(&["property".as_ref(), "set".as_ref(), "-ts".as_ref(), &at("a/ro"), "ro".as_ref(), "true".as_ref()]);
    fs::write(at("a/b/frozen"), "x").unwrap();
    for path in ["a/b/frozen", "a/b/c/three", "a/b/c"] {
        run("chattr", ["+i".as_ref(), at(path).as_os_str()]);
    }
    assert_eq!(f.subvolumes().len(), before + 6);
    f.storage.mount(id, IDS).await.unwrap();
    f.storage.delete(id).await.unwrap();
    assert!(!f.storage.exists(id).await.unwrap());
    assert_eq!(f.subvolumes().len(), before - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_subvolume_is_deleted_too() {
    let f = Fixture::new().await;
    let (folder, file, link) = (ContainerId::generate(), ContainerId::generate(), ContainerId::generate());
    fs::create_dir_all(f.root(folder).join("x/y")).unwrap();
    fs::write(f.root(file), "x").unwrap();
    std::os::unix::fs::symlink(&f.image, f.root(link)).unwrap();
    let mut expected = [folder, file, link];
    expected.sort();
    assert_eq!(f.storage.inventory().await.unwrap(), expected);
    for id in expected {
        assert!(!f.storage.exists(id).await.unwrap());
        f.storage.delete(id).await.unwrap();
    }
    assert_eq!(f.storage.inventory().await.unwrap(), []);
    assert!(f.image.join("etc/motd").exists(), "deleted through a link");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_has_subvolumes_mounts_and_nothing_else() {
    let f = Fixture::new().await;
    let (made, mounted) = (f.container(100 * MIB).await, f.container(100 * MIB).await);
    f.storage.mount(mounted, IDS).await.unwrap();
    let left = ContainerId::generate();
    fs::create_dir(f.scratch.mounts().join(left.to_string())).unwrap();
    fs::create_dir(f.scratch.pool().join("containers/not-an-id")).unwrap();
    let mut expected = vec![made, mounted, left];
    expected.sort();
    assert_eq!(f.storage.inventory().await.unwrap(), expected);
    for id in expected {
        f.storage.delete(id).await.unwrap();
    }
    assert_eq!(f.storage.inventory().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_groups_of_deleted_containers_do_not_pile_up() {
    let f = Fixture::new().await;
    let groups = || {
        let table = run("btrfs", ["qgroup", "show", "--raw", f.scratch.pool().to_str().unwrap()]);
        table.lines().filter(|line| line.trim_start().starts_with("0/")).count()
    };
    f.sync();
    let before = groups();
    for _ in 0..5 {
        let id = f.container(100 * MIB).await;
        fs::write(f.root(id).join("data"), vec![7; 1 << 20]).unwrap();
        f.storage.delete(id).await.unwrap();
    }
    wait_for("the deleted subvolumes' end", || {
        f.sync();
        run("btrfs", ["subvolume".as_ref(), "list".as_ref(), "-d".as_ref(), f.scratch.pool().as_os_str()]).is_empty()
    });
    open(&f.scratch, QuotaMode::Simple).await;
    f.sync();
    assert_eq!(groups(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_fills_as_containers_write() {
    let f = Fixture::new().await;
    let before = f.storage.pool_usage().await.unwrap();
    assert!(before.total_bytes >= support::POOL_BYTES * 9 / 10 && before.used_bytes < before.total_bytes);
    let id = f.container(500 * MIB).await;
    fs::write(f.root(id).join("data"), vec![7; 64 << 20]).unwrap();
    f.sync();
    let after = f.storage.pool_usage().await.unwrap();
    assert!(after.used_bytes >= before.used_bytes + 60 * MIB, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    let f = std::sync::Arc::new(Fixture::new().await);
    let one = |n: u32| {
        let f = f.clone();
        tokio::spawn(async move {
            let id = f.container(50 * MIB).await;
            let root = f.storage.mount(id, IdRange { first: 65_536 * (n + 2) }).await.unwrap();
            assert_eq!(fs::metadata(root.join("etc")).unwrap().uid(), 65_536 * (n + 2));
            f.storage.delete(id).await.unwrap();
        })
    };
    futures::future::try_join_all((0..24).map(one)).await.unwrap();
    assert_eq!(f.storage.inventory().await.unwrap(), []);
    assert_eq!(f.subvolumes().len(), 1);
}
