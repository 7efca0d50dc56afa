//! Differences: from one transfer to the next, and along chains of copies.

use crate::{
    fixture::{Fixture, MIB, ROOM, assert_same, content, tree},
    support::run,
    whole::fill,
};
use hoody_agent::storage::{BtrfsPool, PoolConfig, QuotaMode, ReceiveError, Refusal, Room, StageError, Storage};
use hoody_protocol::id::TransferId;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
};

/// Changes of every kind.
fn change(root: &Path) {
    OpenOptions::new().write(true).open(root.join("deep/er/large")).unwrap().write_all_at(b"changed", 70_000).unwrap();
    fs::rename(root.join("deep/er"), root.join("moved")).unwrap();
    fs::create_dir(root.join("deep/er")).unwrap();
    fs::write(root.join("deep/er/new"), content(300_000, 9)).unwrap();
    fs::remove_file(root.join("deep/empty")).unwrap();
    fs::create_dir(root.join("deep/empty")).unwrap();
    fs::remove_file(root.join("absolute")).unwrap();
    symlink("elsewhere", root.join("absolute")).unwrap();
    fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o4700)).unwrap();
    xattr::remove(root.join("attributes"), "user.note").unwrap();
    xattr::set(root.join("attributes"), "user.other", b"new").unwrap();
    OpenOptions::new().write(true).open(root.join("holes")).unwrap().set_len(5 << 20).unwrap();
    fs::remove_file(root.join("fifo")).unwrap();
    // Names that change places.
    fs::rename(root.join("shared"), root.join("between")).unwrap();
    fs::rename(root.join("capable"), root.join("shared")).unwrap();
    fs::rename(root.join("between"), root.join("capable")).unwrap();
    let (from, to) = (root.join("moved/large"), root.join("shared again"));
    run("cp", ["--reflink=always", from.to_str().unwrap(), to.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_makes_the_next_state_of_the_last_one() {
    let f = Fixture::new().await;
    fill(&f.root());
    let first = f.copy(None).await;
    let before = tree(&f.received(first));
    change(&f.root());
    let (second, stream) = f.stream(Some(first)).await;
    assert!(stream.len() < 4 << 20, "{} bytes are no difference", stream.len());
    f.receive(second, Some(first), &stream).await.unwrap();
    assert_same(&f.root(), &f.received(second));
    assert_eq!(tree(&f.received(first)), before, "the base was changed");
    // Nothing changed: still a state of its own, and next to nothing to send.
    let (third, stream) = f.stream(Some(second)).await;
    assert!(stream.len() < 10_000, "{} bytes for nothing", stream.len());
    f.receive(third, Some(second), &stream).await.unwrap();
    assert_same(&f.root(), &f.received(third));
    // A difference over two steps.
    let stream = f.sent(third, Some(first)).await;
    f.target.retain(f.container, vec![first]).await.unwrap();
    assert_eq!(f.held(), [first.to_string()]);
    f.receive(third, Some(first), &stream).await.unwrap();
    assert_same(&f.root(), &f.received(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_fits_only_what_it_is_the_difference_from() {
    let f = Fixture::new().await;
    fs::write(f.root().join("file"), "1").unwrap();
    let first = f.copy(None).await;
    fs::write(f.root().join("file"), "2").unwrap();
    let second = f.copy(None).await;
    fs::write(f.root().join("file"), "3").unwrap();
    let (third, stream) = f.stream(Some(second)).await;
    let parent = |result: Result<_, StageError>| {
        matches!(result, Err(StageError::Receive(ReceiveError::Refused { refusal: Refusal::Parent, .. })))
    };
    assert!(parent(f.receive(third, Some(first), &stream).await), "from another state");
    assert!(parent(f.receive(third, None, &stream).await), "from nothing");
    let whole = f.sent(third, None).await;
    assert!(parent(f.receive(third, Some(second), &whole).await), "a whole one on top of something");
    let gone = TransferId::generate();
    let missing = f.receive(third, Some(gone), &stream).await;
    assert!(matches!(missing, Err(StageError::NoBase(base)) if base == gone), "{missing:?}");
    f.receive(third, Some(second), &stream).await.unwrap();
    assert_same(&f.root(), &f.received(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_anybody_but_the_platform_is_seen() {
    let f = Fixture::new().await;
    fill(&f.root());
    for folder in ["etc", "root/.ssh", "proc"] {
        fs::create_dir_all(f.root().join(folder)).unwrap();
    }
    fs::write(f.root().join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let transfer = f.copy(None).await;
    let pool = f.scratch.pool().join("target");
    let config = PoolConfig { pool: pool.clone(), mounts: f.scratch.mounts(), quota: QuotaMode::Simple };
    let storage = BtrfsPool::open(config).await.unwrap();
    storage.receive(f.container, &f.received(transfer), 64 * MIB, false).await.unwrap();
    let root = pool.join("containers").join(f.container.to_string());
    assert_eq!(fs::read(root.join("etc/machine-id")).unwrap(), b"", "it has its origin's identity");
    let diverged = async || f.target.diverged(f.container, transfer, &root).await.unwrap();
    assert!(!diverged().await);
    // What the platform writes, and what reading does.
    fs::write(root.join("etc/machine-id"), "1").unwrap();
    fs::write(root.join("root/.ssh/authorized_keys"), "key").unwrap();
    fs::write(root.join("etc/hosts"), "").unwrap();
    fs::create_dir_all(root.join("mnt/shares")).unwrap();
    fs::read(root.join("deep/er/large")).unwrap();
    assert!(!diverged().await);
    let changes: [&dyn Fn(); 4] = [
        &|| fs::write(root.join("new"), "x").unwrap(),
        &|| fs::remove_file(root.join("attributes")).unwrap(),
        &|| fs::rename(root.join("holes"), root.join("renamed")).unwrap(),
        &|| fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o700)).unwrap(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        storage.delete(f.container).await.unwrap();
        storage.receive(f.container, &f.received(transfer), 64 * MIB, false).await.unwrap();
        assert!(!diverged().await);
        change();
        assert!(diverged().await, "change {index}");
    }
    assert_eq!(f.held(), [transfer.to_string()], "a comparison left something");
    // Without what it came with nothing can be said.
    assert!(f.target.diverged(f.container, TransferId::generate(), &root).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_received_stays_while_others_go() {
    let f = Fixture::new().await;
    fill(&f.root());
    let first = f.copy(None).await;
    let (second, stream) = f.stream(None).await;
    let mut staging = f.target.stage(f.container, second, None, Room::of(ROOM)).await.unwrap();
    staging.write(&stream[..1000]).await.unwrap();
    // An order to send something of the same container comes meanwhile.
    f.target.retain(f.container, vec![second]).await.unwrap();
    assert!(!f.target.has(f.container, first).await.unwrap());
    staging.write(&stream[1000..]).await.unwrap();
    staging.finish(stream.len() as u64, hoody_protocol::stream_digest::StreamDigest::of(&stream)).await.unwrap();
    assert_same(&f.root(), &f.received(second));
}

/// As a container moves: its snapshots, each as the difference from the one before it, then what it is now.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_snapshots_shares_what_it_has_in_common() {
    let f = Fixture::new().await;
    fs::write(f.root().join("common"), content(8 << 20, 1)).unwrap();
    fs::write(f.root().join("only"), "the oldest").unwrap();
    let (mut base, mut chain, mut trees, mut sent) = (None, Vec::new(), Vec::new(), 0);
    for state in ["one", "two", "three"] {
        fs::write(f.root().join("state"), state).unwrap();
        let (transfer, stream) = f.stream(base).await;
        f.receive(transfer, base, &stream).await.unwrap();
        sent += stream.len();
        (base, trees) = (Some(transfer), [trees, vec![tree(&f.root())]].concat());
        chain.push(transfer);
        // Only the oldest has it.
        _ = fs::remove_file(f.root().join("only"));
    }
    for (transfer, was) in chain.iter().zip(&trees) {
        assert_eq!(&tree(&f.received(*transfer)), was);
    }
    assert!(sent < 10 << 20, "{sent} bytes were sent");
    let taken = f.target.taken(f.container, &chain).await.unwrap().unwrap();
    assert!((8 * MIB..10 * MIB).contains(&taken), "{taken} bytes are taken");
    assert_eq!(f.target.taken(f.container, &[]).await.unwrap(), Some(0));
    assert_eq!(f.target.taken(f.container, &[chain[0], TransferId::generate()]).await.unwrap(), None);
    // Without one in the middle the others are what they were.
    f.target.retain(f.container, vec![chain[0], chain[2]]).await.unwrap();
    assert_eq!(tree(&f.received(chain[2])), trees[2]);
    // They may move on: what was received is sent again, and fits the same base.
    fs::create_dir(f.scratch.pool().join("further")).unwrap();
    let further = crate::fixture::open(&f.scratch, "further").await;
    let mut base = None;
    for (transfer, was) in [chain[0], chain[2]].iter().zip([&trees[0], &trees[2]]) {
        let kept = TransferId::generate();
        f.target.keep(f.container, kept, &f.received(*transfer)).await.unwrap();
        let mut sending = f.target.send(f.container, kept, base).await.unwrap();
        let mut stream = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut sending.output, &mut stream).await.unwrap();
        sending.ended.await.unwrap().unwrap();
        let mut staging = further.stage(f.container, kept, base, Room::of(ROOM)).await.unwrap();
        staging.write(&stream).await.unwrap();
        staging.finish(stream.len() as u64, hoody_protocol::stream_digest::StreamDigest::of(&stream)).await.unwrap();
        assert_eq!(&tree(&further.path(f.container, kept)), was);
        base = Some(kept);
    }
}

/// What was received before and is gone, but for a snapshot of the container, goes on counting: else a container that is
/// synced again and again would have as many times its room as it has snapshots.
#[tokio::test(flavor = "multi_thread")]
async fn what_snapshots_hold_of_earlier_transfers_counts() {
    let f = Fixture::new().await;
    let room = Room::of(32 * MIB);
    let snapshot = |of: &Path, name: &str| {
        let (of, to) = (of.as_os_str().to_owned(), f.scratch.pool().join(name).into_os_string());
        run("btrfs", ["subvolume".into(), "snapshot".into(), "-r".into(), of, to]);
    };
    let (mut base, mut received) = (None, 0);
    let full = loop {
        fs::write(f.root().join("all"), content(20 << 20, received)).unwrap();
        let (transfer, stream) = f.stream(base).await;
        if let Err(error) = f.receive_within(transfer, base, &stream, room).await {
            f.target.discard(f.container, transfer).await.unwrap();
            break error;
        }
        received += 1;
        snapshot(&f.received(transfer), &format!("held-{received}"));
        f.target.retain(f.container, vec![transfer]).await.unwrap();
        base = Some(transfer);
    };
    let StageError::Receive(ReceiveError::Apply(error)) = &full else { panic!("{full:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded, "{error:?}");
    assert_eq!(received, 3, "as many as fit twice the room");
    // Nothing but the snapshots was in the way.
    for name in 1..=received {
        run(
            "btrfs",
            ["subvolume".as_ref(), "delete".as_ref(), f.scratch.pool().join(format!("held-{name}")).as_os_str()],
        );
    }
    for what in ["filesystem", "subvolume"] {
        run("btrfs", [what.as_ref(), "sync".as_ref(), f.scratch.pool().as_os_str()]);
    }
    let (transfer, stream) = f.stream(base).await;
    f.receive_within(transfer, base, &stream, room).await.unwrap();
}
