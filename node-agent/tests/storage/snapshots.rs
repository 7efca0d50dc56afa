//! Snapshots, the swap that restores one, copies, and what they may take of the pool.

use super::*;
use hoody_agent::storage::Replacement;
use hoody_protocol::{id::SnapshotId, snapshot::Origin};

impl Fixture {
    fn write(&self, id: ContainerId, text: &str) {
        fs::write(self.root(id).join("state"), text).unwrap();
    }

    fn read(&self, id: ContainerId) -> String {
        fs::read_to_string(self.root(id).join("state")).unwrap_or_default()
    }

    async fn take(&self, id: ContainerId) -> SnapshotId {
        let snapshot = SnapshotId::generate();
        self.storage.take_snapshot(id, snapshot).await.unwrap();
        snapshot
    }

    fn held(&self, id: ContainerId, snapshot: SnapshotId) -> PathBuf {
        self.scratch.pool().join(format!("snapshots/{id}/{snapshot}"))
    }

    fn beside(&self, kind: &str, id: ContainerId) -> PathBuf {
        self.scratch.pool().join(format!("containers/.{kind}-{id}"))
    }
}

fn move_to(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_keeps_what_was_written_and_nobody_changes_it() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    // Not on the disk yet.
    f.write(id, "one");
    let snapshot = SnapshotId::generate();
    f.storage.take_snapshot(id, snapshot).await.unwrap();
    f.write(id, "two");
    f.storage.take_snapshot(id, snapshot).await.unwrap();
    let held = f.held(id, snapshot);
    assert_eq!(fs::read_to_string(held.join("state")).unwrap(), "one", "a replay took it again");
    assert!(fs::write(held.join("state"), "x").is_err(), "it is writable");
    let listed = f.storage.snapshots(id).await.unwrap();
    assert_eq!(listed.iter().map(|held| held.id).collect::<Vec<_>>(), [snapshot]);
    f.storage.delete_snapshot(id, snapshot).await.unwrap();
    f.storage.delete_snapshot(id, snapshot).await.unwrap();
    assert_eq!(f.storage.snapshots(id).await.unwrap(), []);
    assert!(!f.scratch.pool().join(format!("snapshots/{id}")).exists());
    let none = f.storage.take_snapshot(ContainerId::generate(), snapshot).await;
    assert!(matches!(none, Err(StorageError::Missing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_container_goes_with_it() {
    let f = Fixture::new().await;
    let before = f.subvolumes().len();
    let id = f.container(100 * MIB).await;
    let inner = f.root(id).join("inner");
    run("btrfs", ["subvolume".as_ref(), "create".as_ref(), inner.as_os_str()]);
    let snapshot = f.take(id).await;
    f.take(id).await;
    f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    assert!(f.beside("aside", id).exists());
    f.storage.delete(id).await.unwrap();
    assert_eq!(f.storage.inventory().await.unwrap(), []);
    assert_eq!(f.subvolumes().len(), before);
    assert!(!f.scratch.pool().join(format!("snapshots/{id}")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_is_done_once_and_can_be_taken_back_until_it_is_settled() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    f.write(id, "one");
    let snapshot = f.take(id).await;
    f.write(id, "two");
    f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    assert_eq!(f.read(id), "one");
    f.write(id, "three");
    f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    assert_eq!(f.read(id), "three", "it was done twice");
    f.storage.swap_back(id).await.unwrap();
    assert_eq!(f.read(id), "two");
    f.storage.swap_back(id).await.unwrap();
    assert_eq!(f.read(id), "two");
    f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    f.storage.forget_aside(id).await.unwrap();
    f.storage.forget_aside(id).await.unwrap();
    f.storage.swap_back(id).await.unwrap();
    assert_eq!(f.read(id), "one");
    assert_eq!(fs::read_to_string(f.held(id, snapshot).join("state")).unwrap(), "one", "the snapshot was used up");
    for kind in ["aside", "staged"] {
        assert!(!f.beside(kind, id).exists(), "{kind}");
    }
    let none = f.storage.swap_in(id, &Replacement::Snapshot(SnapshotId::generate())).await;
    assert!(matches!(none, Err(StorageError::NoSnapshot { .. })), "{none:?}");
    assert_eq!(f.read(id), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_was_cut_off_is_the_old_or_the_new_state() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    f.write(id, "one");
    let snapshot = f.take(id).await;
    f.write(id, "two");
    // Between the two renames.
    let staged = f.beside("staged", id);
    run("btrfs", ["subvolume".as_ref(), "snapshot".as_ref(), f.held(id, snapshot).as_os_str(), staged.as_os_str()]);
    move_to(&f.root(id), &f.beside("aside", id));
    let again = open(&f.scratch, QuotaMode::Simple).await;
    assert!(again.exists(id).await.unwrap());
    assert_eq!(f.read(id), "two");
    assert!(!staged.exists() && !f.beside("aside", id).exists());
    again.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    assert_eq!(f.read(id), "one");
    // After both: what is aside stays until somebody says what becomes of it.
    let again = open(&f.scratch, QuotaMode::Simple).await;
    assert!(f.beside("aside", id).exists());
    again.swap_back(id).await.unwrap();
    assert_eq!(f.read(id), "two");
    // On the way back, between its renames.
    again.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    move_to(&f.root(id), &staged);
    open(&f.scratch, QuotaMode::Simple).await;
    assert_eq!(f.read(id), "two");
    assert!(!staged.exists());
}

async fn fill(f: &Fixture, id: ContainerId, name: &str, mib: usize) -> bool {
    let root = f.storage.mount(id, IDS).await.unwrap();
    let script = format!("yes | head -c {} > /{name}", mib << 20);
    let done = run_inside(&root, IDS.first, ROOT, &script).status.success();
    f.sync();
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_and_its_snapshots_together_stay_below_its_limit() {
    let f = Fixture::new().await;
    let id = f.container(40 * MIB).await;
    assert!(fill(&f, id, "first", 16).await);
    let bytes = f.storage.take_snapshot(id, SnapshotId::generate()).await.unwrap();
    assert!((16 * MIB..18 * MIB).contains(&bytes), "{bytes}");
    // Deleted in the container, held by the snapshot: it still counts.
    fs::remove_file(f.root(id).join("first")).unwrap();
    f.sync();
    assert!(f.storage.usage(id).await.unwrap().used_bytes >= 16 * MIB);
    assert!(!fill(&f, id, "second", 32).await, "it took more than its limit");
    fs::remove_file(f.root(id).join("second")).unwrap();
    assert!(fill(&f, id, "second", 8).await);
    // Also over restorations: the restored root file system is another subvolume, and the limit is the same.
    let snapshot = f.take(id).await;
    for _ in 0..3 {
        f.storage.unmount(id).await.unwrap();
        f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
        f.storage.forget_aside(id).await.unwrap();
        let usage = f.storage.usage(id).await.unwrap();
        assert_eq!(usage.total_bytes, 40 * MIB);
        assert!(!fill(&f, id, "third", 32).await, "it took more than its limit: {usage:?}");
        fs::remove_file(f.root(id).join("third")).unwrap();
        f.sync();
    }
    // A higher limit holds for the whole too.
    f.storage.create(id, &f.image, 80 * MIB).await.unwrap();
    assert!(fill(&f, id, "third", 32).await);
    assert_eq!(f.storage.usage(id).await.unwrap().total_bytes, 80 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_snapshot_gives_its_room_back() {
    let f = Fixture::new().await;
    let id = f.container(40 * MIB).await;
    assert!(fill(&f, id, "first", 16).await);
    let snapshot = f.take(id).await;
    fs::remove_file(f.root(id).join("first")).unwrap();
    f.storage.delete_snapshot(id, snapshot).await.unwrap();
    wait_for("the room", || {
        f.sync();
        let listed = run("btrfs", ["qgroup", "show", "--raw", f.scratch.pool().to_str().unwrap()]);
        let group = listed.lines().find(|line| line.trim_start().starts_with("1/")).unwrap_or_default();
        group.split_whitespace().nth(2).and_then(|bytes| bytes.parse::<u64>().ok()).is_some_and(|bytes| bytes < MIB)
    });
    assert!(fill(&f, id, "second", 24).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_before_there_were_groups_gets_one() {
    let f = Fixture::new().await;
    let id = ContainerId::generate();
    run("btrfs", ["subvolume".as_ref(), "snapshot".as_ref(), f.image.as_os_str(), f.root(id).as_os_str()]);
    run("btrfs", ["qgroup".as_ref(), "limit".as_ref(), "-e".as_ref(), "40M".as_ref(), f.root(id).as_os_str()]);
    assert!(fill(&f, id, "first", 16).await);
    let before = f.storage.usage(id).await.unwrap();
    assert_eq!(before.total_bytes, 40 * MIB);
    let snapshot = f.take(id).await;
    f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    f.storage.forget_aside(id).await.unwrap();
    f.sync();
    let after = f.storage.usage(id).await.unwrap();
    assert_eq!(after.total_bytes, 40 * MIB);
    assert!(after.used_bytes >= 16 * MIB, "{after:?}");
    f.storage.create(id, &f.image, 60 * MIB).await.unwrap();
    assert_eq!(f.storage.usage(id).await.unwrap().total_bytes, 60 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_its_own_and_begins_with_what_its_origin_holds() {
    let f = Fixture::new().await;
    let id = f.container(100 * MIB).await;
    f.write(id, "one");
    fs::write(f.root(id).join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    assert!(fill(&f, id, "big", 24).await);
    let snapshot = f.take(id).await;
    f.write(id, "two");
    let (live, old) = (ContainerId::generate(), ContainerId::generate());
    let from = |snapshot| Origin { container: id, snapshot, kept: None };
    for _ in 0..2 {
        f.storage.copy(live, from(None), None, 60 * MIB).await.unwrap();
        f.storage.copy(old, from(Some(snapshot)), None, 100 * MIB).await.unwrap();
    }
    assert_eq!((f.read(live).as_str(), f.read(old).as_str(), f.read(id).as_str()), ("two", "one", "two"));
    f.write(live, "three");
    f.storage.copy(live, from(None), None, 60 * MIB).await.unwrap();
    assert_eq!((f.read(live).as_str(), f.read(id).as_str()), ("three", "two"), "it was copied again");
    assert_eq!(fs::read_to_string(f.root(live).join("etc/machine-id")).unwrap(), "", "two machines with one identity");
    let usage = f.storage.usage(live).await.unwrap();
    assert_eq!(usage.total_bytes, 60 * MIB);
    assert!((24 * MIB..28 * MIB).contains(&usage.used_bytes), "{usage:?}");
    // What it begins with is held by it when its origin is gone, and it has the rest of its limit to write.
    f.storage.delete(id).await.unwrap();
    assert!(!fill(&f, live, "more", 48).await, "more than its limit");
    fs::remove_file(f.root(live).join("more")).unwrap();
    f.sync();
    assert!(fill(&f, live, "more", 16).await);
    assert_eq!(fs::metadata(f.root(live).join("big")).unwrap().len(), 24 * MIB);
    // A copy of the copy too; and a limit that it is above already is refused.
    let third = ContainerId::generate();
    let origin = Origin { container: live, snapshot: None, kept: None };
    let refused = f.storage.copy(third, origin, None, 48 * MIB).await;
    assert!(matches!(refused, Err(StorageError::CopyTooLarge { needed, .. }) if needed >= 40 * MIB), "{refused:?}");
    assert!(!f.storage.exists(third).await.unwrap() && !f.beside("staged", third).exists());
    f.storage.copy(third, origin, None, 90 * MIB).await.unwrap();
    assert!(f.storage.usage(third).await.unwrap().used_bytes >= 40 * MIB);
    let none = Origin { container: ContainerId::generate(), snapshot: None, kept: None };
    assert!(matches!(
        f.storage.copy(ContainerId::generate(), none, None, MIB).await,
        Err(StorageError::Missing { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_moved_arrives_however_full_it_is_and_a_copy_is_refused() {
    let f = Fixture::new().await;
    // What came from another server, where as much as this counted as its own.
    let came = |own_bytes: u64| {
        let path = f.scratch.pool().join(format!("came-{own_bytes}"));
        run("btrfs", ["subvolume".as_ref(), "snapshot".as_ref(), f.image.as_os_str(), path.as_os_str()]);
        fs::write(path.join("state"), "as it was").unwrap();
        xattr::set(&path, "trusted.hoody.inherited_bytes", own_bytes.to_string().as_bytes()).unwrap();
        let read_only = ["property", "set", "-ts", path.to_str().unwrap(), "ro", "true"];
        run("btrfs", read_only.map(std::ffi::OsStr::new));
        path
    };
    for (own_bytes, disk_bytes) in [(40 * MIB, 40 * MIB), (30 * MIB, 40 * MIB), (MIB, 16 * MIB), (50 * MIB, 40 * MIB)] {
        let (id, path) = (ContainerId::generate(), came(own_bytes));
        let copy = f.storage.receive(id, &path, disk_bytes, false).await;
        assert!(matches!(copy, Err(StorageError::CopyTooLarge { .. })), "{copy:?}");
        assert!(!f.storage.exists(id).await.unwrap());
        f.storage.receive(id, &path, disk_bytes, true).await.unwrap();
        assert_eq!(f.read(id), "as it was");
        // What it could write there, it can write here.
        let free = disk_bytes.saturating_sub(own_bytes);
        assert_eq!(fill(&f, id, "more", 8).await, free > 8 * MIB, "{own_bytes} of {disk_bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_follows_no_link_of_its_origin() {
    let f = Fixture::new().await;
    let id = f.container(60 * MIB).await;
    // A link where the identity should be leads nowhere.
    let outside = f.scratch.pool().join("outside");
    fs::write(&outside, "precious").unwrap();
    std::os::unix::fs::symlink(&outside, f.root(id).join("etc/machine-id")).unwrap();
    let copy = ContainerId::generate();
    f.storage.copy(copy, Origin { container: id, snapshot: None, kept: None }, None, 60 * MIB).await.unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    let fifo = f.container(60 * MIB).await;
    run("mkfifo", [f.root(fifo).join("etc/machine-id").as_os_str()]);
    f.storage
        .copy(ContainerId::generate(), Origin { container: fifo, snapshot: None, kept: None }, None, 60 * MIB)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_work_with_full_quotas_too() {
    let f = Fixture::with(QuotaMode::Full, ScratchPool::new()).await;
    let id = f.container(40 * MIB).await;
    assert!(fill(&f, id, "first", 8).await);
    let snapshot = f.take(id).await;
    fs::remove_file(f.root(id).join("first")).unwrap();
    f.sync();
    let held = f.storage.snapshots(id).await.unwrap();
    assert!(held[0].exclusive_bytes.unwrap() >= 8 * MIB, "{held:?}");
    f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    f.storage.forget_aside(id).await.unwrap();
    assert_eq!(f.storage.usage(id).await.unwrap().total_bytes, 40 * MIB);
    let copy = ContainerId::generate();
    f.storage.copy(copy, Origin { container: id, snapshot: Some(snapshot), kept: None }, None, 30 * MIB).await.unwrap();
    assert_eq!(f.storage.usage(copy).await.unwrap().total_bytes, 30 * MIB);
    assert_eq!(fs::metadata(f.root(copy).join("first")).unwrap().len(), 8 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_groups_of_containers_go_with_them() {
    let f = Fixture::new().await;
    let id = f.container(40 * MIB).await;
    f.take(id).await;
    let kept = f.container(40 * MIB).await;
    f.storage.delete(id).await.unwrap();
    let groups = || {
        let table = run("btrfs", ["qgroup", "show", "--raw", f.scratch.pool().to_str().unwrap()]);
        table.lines().filter(|line| line.trim_start().starts_with("1/")).count()
    };
    assert_eq!(groups(), 2);
    wait_for("the deleted subvolumes' end", || {
        f.sync();
        run("btrfs", ["subvolume".as_ref(), "list".as_ref(), "-d".as_ref(), f.scratch.pool().as_os_str()]).is_empty()
    });
    // The first look takes the groups of the subvolumes, with which the container's is empty.
    open(&f.scratch, QuotaMode::Simple).await;
    assert_eq!(groups(), 1);
    assert!(f.storage.usage(kept).await.unwrap().total_bytes == 40 * MIB);
}

/// What came from another server, where as much as this counted as the container's own.
fn brought(f: &Fixture, name: &str, state: &str, own_bytes: u64) -> PathBuf {
    let path = f.scratch.pool().join(name);
    run("btrfs", ["subvolume".as_ref(), "snapshot".as_ref(), f.image.as_os_str(), path.as_os_str()]);
    fs::write(path.join("state"), state).unwrap();
    xattr::set(&path, "trusted.hoody.inherited_bytes", own_bytes.to_string().as_bytes()).unwrap();
    let read_only = ["property", "set", "-ts", path.to_str().unwrap(), "ro", "true"];
    run("btrfs", read_only.map(std::ffi::OsStr::new));
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_moved_are_the_containers_and_what_they_hold_counts() {
    let f = Fixture::new().await;
    let id = ContainerId::generate();
    // The snapshot was sent first; what was written since counted as the container's own too.
    let (old, new) = (brought(&f, "old", "one", 8 * MIB), brought(&f, "new", "two", 24 * MIB));
    let snapshot = SnapshotId::generate();
    for _ in 0..2 {
        f.storage.receive_snapshot(id, snapshot, &old).await.unwrap();
    }
    assert_eq!(f.storage.inventory().await.unwrap(), [id], "nobody would look for it");
    let missing = f.storage.receive_snapshot(id, SnapshotId::generate(), &f.scratch.pool().join("none")).await;
    assert!(matches!(missing, Err(StorageError::Io { .. })), "{missing:?}");
    f.storage.receive(id, &new, 64 * MIB, true).await.unwrap();
    // What it came by goes.
    for path in [&old, &new] {
        run("btrfs", ["subvolume".as_ref(), "delete".as_ref(), path.as_os_str()]);
    }
    assert_eq!(f.storage.snapshots(id).await.unwrap().iter().map(|held| held.id).collect::<Vec<_>>(), [snapshot]);
    assert!(fs::write(f.held(id, snapshot).join("state"), "x").is_err(), "it is writable");
    assert_eq!(f.read(id), "two");
    f.storage.swap_in(id, &Replacement::Snapshot(snapshot)).await.unwrap();
    f.storage.forget_aside(id).await.unwrap();
    assert_eq!(f.read(id), "one");
    f.sync();
    let usage = f.storage.usage(id).await.unwrap();
    assert_eq!(usage.total_bytes, 64 * MIB);
    assert!(
        (24 * MIB..26 * MIB).contains(&usage.used_bytes),
        "{usage:?}: what others of its snapshots hold was given away"
    );
    assert!(!fill(&f, id, "much", 48).await, "it took more than its limit");
    f.storage.unmount(id).await.unwrap();
    f.storage.delete(id).await.unwrap();
    assert!(!f.held(id, snapshot).exists());
}
