//! What a crash leaves is gone after the next start.

use crate::fixture::{Fixture, ROOM, content, open};
use hoody_protocol::id::TransferId;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_done_goes_and_what_is_complete_stays() {
    let f = Fixture::new().await;
    fs::write(f.root().join("file"), content(1 << 20, 3)).unwrap();
    let first = f.copy(None).await;
    let (second, stream) = f.stream(None).await;
    let mut staging = f.target.stage(f.container, second, None, ROOM, ROOM).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_of_a_transfer_that_is_given_up_ends() {
    let f = Fixture::new().await;
    let staging = f.target.stage(f.container, TransferId::generate(), None, ROOM, ROOM).await.unwrap();
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
