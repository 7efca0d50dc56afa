//! What a crash leaves is gone after the next start.

use crate::{
    fixture::{Fixture, ROOM, content, open},
    support::run,
};
use hoody_agent::storage::Room;
use hoody_protocol::id::TransferId;
use std::{ffi::OsStr, fs};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_done_goes_and_what_is_complete_stays() {
    let f = Fixture::new().await;
    fs::write(f.root().join("file"), content(1 << 20, 3)).unwrap();
    let first = f.copy(None).await;
    let (second, stream) = f.stream(None).await;
    let mut staging = f.target.stage(f.container, second, None, Room::of(ROOM)).await.unwrap();
    staging.write(&stream[..500_000]).await.unwrap();
    assert_eq!(f.held().len(), 2);
    drop(staging);
    let again = open(&f.scratch, "target").await;
    assert_eq!(f.held(), [first.to_string()]);
    assert!(again.has(f.container, first).await.unwrap());
    again.retain(f.container, Vec::new()).await.unwrap();
    assert!(f.held().is_empty());
    again.retain(f.container, Vec::new()).await.unwrap();
    assert!(!again.has(f.container, TransferId::generate()).await.unwrap());
}

/// Who hears that a transfer is here may let go of the last other copy: the disk has it by then, and by its name.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_here_is_here_when_the_power_fails_just_then() {
    let f = Fixture::new().await;
    fs::write(f.root().join("file"), content(1 << 20, 3)).unwrap();
    let transfer = f.copy(None).await;
    let after = tempfile::Builder::new().prefix("hoody-after-").tempdir().unwrap();
    let (disk, found) = (after.path().join("disk"), after.path().join("found"));
    run("cp", [OsStr::new("--sparse=always"), f.scratch.path("disk").as_os_str(), disk.as_os_str()]);
    let place = f.received(transfer).strip_prefix(f.scratch.pool()).unwrap().to_owned();
    // Two of one file system are not mounted at once.
    drop(f);
    fs::create_dir(&found).unwrap();
    run("mount", [OsStr::new("-o"), OsStr::new("loop,ro"), disk.as_os_str(), found.as_os_str()]);
    let property = ["property", "get", "-ts"].map(OsStr::new);
    let received = found.join(place);
    let read_only =
        received.exists().then(|| run("btrfs", property.into_iter().chain([received.as_os_str(), OsStr::new("ro")])));
    run("umount", [&found]);
    assert_eq!(read_only.as_deref(), Some("ro=true\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_of_a_transfer_that_is_given_up_ends() {
    let f = Fixture::new().await;
    let staging = f.target.stage(f.container, TransferId::generate(), None, Room::of(ROOM)).await.unwrap();
    let receivers = || {
        let of_this = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/stat")).ok().filter(|stat| {
                stat.rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.split_whitespace().nth(1) == Some(&std::process::id().to_string()))
            })
        };
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        processes
            .filter(|pid| of_this(pid).is_some())
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("receive-stream"))
            })
            .count()
    };
    crate::support::wait_for("the receiver", || receivers() > 0);
    drop(staging);
    // Other tests of this process have receivers of their own, which end too.
    crate::support::wait_for("the receiver's end", || receivers() == 0);
}
