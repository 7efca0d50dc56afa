//! Streams that no kernel made.

use crate::{
    crafted::{OWN, Stream, number},
    fixture::{Fixture, MIB, ROOM},
};
use hoody_agent::storage::{ReceiveError, Refusal, Room, StageError};
use hoody_protocol::id::TransferId;
use std::{fs, io, os::unix::fs::MetadataExt};

fn refused(result: Result<std::path::PathBuf, StageError>) -> Option<Refusal> {
    match result {
        Err(StageError::Receive(ReceiveError::Refused { refusal, .. })) => Some(refusal),
        Ok(_) => None,
        Err(other) => panic!("{other:?}"),
    }
}

async fn outcome(f: &Fixture, stream: Stream) -> Option<Refusal> {
    let transfer = TransferId::generate();
    let outcome = refused(f.receive(transfer, None, &stream.end()).await);
    assert_eq!(f.target.has(f.container, transfer).await.unwrap(), outcome.is_none());
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reached_through_a_link_or_a_path_that_leads_out() {
    let f = Fixture::new().await;
    let outside = f.scratch.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "the node's").unwrap();
    let out = outside.to_str().unwrap();
    let secret = outside.join("secret");
    let secret = secret.to_str().unwrap();
    let up = format!("../../../../../../..{secret}");
    let begin = || Stream::new().folder("inside").file("inside/file").link("door", out).link("paper", secret);
    let path = |name: &'static str| (15u16, name.as_bytes());
    let time = [0u8; 12];
    let attempts = [
        ("through a folder", begin().write("door/secret", 0, b"pwned")),
        ("to a linked file", begin().write("paper", 0, b"pwned")),
        ("up", begin().write(&up, 0, b"pwned")),
        ("up behind a folder", begin().write("inside/../../secret", 0, b"pwned")),
        ("absolute", begin().write(secret, 0, b"pwned")),
        ("make a file", begin().file("door/new")),
        ("make a folder", begin().folder("door/new")),
        ("make a link", begin().link("door/new", "x")),
        ("remove", begin().command(11, &[path("door/secret")])),
        ("truncate", begin().command(17, &[path("paper"), (4, &number(0))])),
        ("mode", begin().command(18, &[path("paper"), (5, &number(0o777))])),
        ("mode behind", begin().command(18, &[path("door/secret"), (5, &number(0o777))])),
        ("owner", begin().command(19, &[path("door/secret"), (6, &number(1)), (7, &number(1))])),
        ("times", begin().command(20, &[path("door/secret"), (11, &time), (10, &time)])),
        ("attribute", begin().command(13, &[path("door/secret"), (13, b"user.x"), (14, b"y")])),
        ("rename in", begin().command(9, &[path("door/secret"), (16, b"mine")])),
        ("rename out", begin().command(9, &[path("inside/file"), (16, b"door/mine")])),
        ("hard link in", begin().command(10, &[path("mine"), (17, b"door/secret")])),
        ("hard link out", begin().command(10, &[path("door/mine"), (17, b"inside/file")])),
        ("clone in", begin().file("mine").clone_from("mine", &OWN, "door/secret")),
        ("clone through", begin().file("mine").clone_from("mine", &OWN, "paper")),
        ("a nul", begin().command(3, &[(15, b"a\0b")])),
        ("a folder that was replaced by a link", {
            let stream = begin().write("inside/file", 0, b"x").command(11, &[path("inside/file")]);
            stream.command(12, &[path("inside")]).link("inside", out).write("inside/secret", 0, b"pwned")
        }),
    ];
    for (what, stream) in attempts {
        assert_eq!(outcome(&f, stream).await, Some(Refusal::Path), "{what}");
        assert_eq!(fs::read_to_string(secret).unwrap(), "the node's", "{what}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{what}");
        let data = fs::metadata(secret).unwrap();
        assert_eq!((data.uid(), data.mode() & 0o777, data.nlink()), (0, 0o644, 1), "{what}");
    }
    // Links are only not gone through; as links they are made, owned and timed.
    let own = begin().command(19, &[path("paper"), (6, &number(7)), (7, &number(8))]);
    assert_eq!(outcome(&f, own.command(20, &[path("paper"), (11, &time), (10, &time)])).await, None);
    assert_eq!(fs::metadata(secret).unwrap().uid(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_about_one_subvolume_and_takes_data_from_no_other() {
    let f = Fixture::new().await;
    let subvolume = |stream: Stream| stream.command(1, &[(15, b"y"), (1, &[8; 16]), (2, &number(5))]);
    let snapshot = |stream: Stream, parent: &[u8; 16]| {
        stream.command(2, &[(15, b"y"), (1, &[8; 16]), (2, &number(5)), (20, parent), (21, &number(5))])
    };
    assert_eq!(outcome(&f, subvolume(Stream::new())).await, Some(Refusal::Nested));
    assert_eq!(outcome(&f, snapshot(Stream::new(), &OWN)).await, Some(Refusal::Nested));
    assert_eq!(outcome(&f, snapshot(Stream::empty(), &OWN)).await, Some(Refusal::Parent));
    assert_eq!(outcome(&f, Stream::empty().file("x")).await, Some(Refusal::Beginning));
    assert_eq!(outcome(&f, Stream::empty()).await, Some(Refusal::Beginning));
    // Another tenant's subvolume, known by its uuid.
    fs::write(f.root().join("secret"), [1; 4096]).unwrap();
    let shown = crate::support::run("btrfs", ["subvolume".as_ref(), "show".as_ref(), f.root().as_os_str()]);
    let uuid = shown.lines().find_map(|line| line.trim().strip_prefix("UUID:")).unwrap().trim().replace('-', "");
    let uuid: [u8; 16] = hex::decode(uuid).unwrap().try_into().unwrap();
    let stolen = Stream::new().file("mine").clone_from("mine", &uuid, "secret");
    assert_eq!(outcome(&f, stolen).await, Some(Refusal::Clone));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_refused_and_attributes_of_the_system_left_out() {
    let f = Fixture::new().await;
    let node =
        |mode: u64, device: u64| Stream::new().command(5, &[(15, b"node"), (5, &number(mode)), (8, &number(device))]);
    for (mode, device) in [(0o060_644, 0x700), (0o020_644, 0x103), (0o060_644, 0), (0o100_644, 0), (0, 0)] {
        assert_eq!(outcome(&f, node(mode, device)).await, Some(Refusal::Device), "{mode:o} {device:x}");
    }
    let mut stream = Stream::new().file("file");
    for name in ["trusted.overlay.opaque", "security.selinux", "security.ima", "system.nothing", "userx", ""] {
        stream = stream.command(13, &[(15, b"file"), (13, name.as_bytes()), (14, b"x")]);
    }
    let transfer = TransferId::generate();
    f.receive(transfer, None, &stream.command(13, &[(15, b"file"), (13, b"user.x"), (14, b"x")]).end()).await.unwrap();
    let kept: Vec<_> = xattr::list(f.received(transfer).join("file")).unwrap().collect();
    assert_eq!(kept, ["user.x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_takes_no_more_than_its_room() {
    let f = Fixture::new().await;
    let mut stream = Stream::new().file("huge");
    for piece in 0..1400u64 {
        stream = stream.write("huge", piece * 48_000, &[piece as u8; 48_000]);
    }
    let stream = stream.end();
    let transfer = TransferId::generate();
    let full = f.receive_within(transfer, None, &stream, Room { bytes: 16 * MIB, ..Room::of(ROOM) }).await;
    let Err(StageError::Receive(ReceiveError::Apply(error))) = full else { panic!("{full:?}") };
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded, "{error:?}");
    let long = f.receive_within(transfer, None, &stream, Room { stream_bytes: 16 * MIB, ..Room::of(ROOM) }).await;
    assert!(matches!(long, Err(StageError::TooLong { .. })), "{long:?}");
    assert!(!f.target.has(f.container, transfer).await.unwrap());
    // A hole costs nothing, however large it says it is.
    let hole = |size| Stream::new().file("hole").command(17, &[(15, b"hole"), (4, &number(size))]);
    assert_eq!(outcome(&f, hole(1 << 50)).await, None);
    for size in [u64::MAX, (i64::MAX as u64) + 1] {
        let transfer = TransferId::generate();
        let failed = f.receive(transfer, None, &hole(size).end()).await;
        assert!(matches!(failed, Err(StageError::Receive(ReceiveError::Apply(_)))), "{failed:?}");
    }
}
