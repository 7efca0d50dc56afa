//! Of an import whose client has gone away.

use super::*;
use crate::service::{exec::Conversations, image::blobs};
use hoody_protocol::id::UserId;
use nix::sys::stat::Mode;
use std::fs::OpenOptions;

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_place_is_taken_until_nothing_reads_the_upload() {
    let data = tempfile::tempdir().unwrap();
    let upload = blobs::upload(data.path()).unwrap();
    // Opening it waits for the other end, so the thread is at it until it is let go.
    let path = upload.path().to_owned();
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let spooled = Spooled { upload, digest: Digest::of(b""), bytes: 0 };

    let (all, user) = (Conversations::default(), UserId::generate());
    let _other = all.begin(user, Kind::Import).unwrap();
    let place = all.begin(user, Kind::Import).unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let read = move |_, stopped: &AtomicBool| {
        let _ = tell.send(stopped.load(Ordering::Relaxed));
        Ok(())
    };
    let mut looking = Box::pin(look(place, spooled, read));
    assert!(futures::poll!(&mut looking).is_pending());
    drop(looking);
    let meanwhile = all.begin(user, Kind::Import);
    let opened = tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path));
    opened.await.unwrap().unwrap();
    assert!(matches!(meanwhile, Err(ServiceError::RateLimited { .. })), "the thread went on without a place");
    assert!(tokio::time::timeout(DEADLINE, told).await.unwrap().unwrap(), "it is not told that nobody waits");
    let free = async {
        while all.begin(user, Kind::Import).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.expect("the place is not given back");
}
