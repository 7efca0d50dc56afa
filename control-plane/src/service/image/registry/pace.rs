//! How fast a layer must come. Places for pulls are few and shared by all accounts, and registries are of the tenants'
//! choice: one that sends a byte now and then would keep a place for as long as a pull may take.

use super::error::PullError;
use hoody_protocol::image::Digest;
use std::{
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Bytes that have to come within [`STALL`] of waiting, unless the layer ends before.
const LEAST_BYTES: u64 = 256 << 10;
/// See [`LEAST_BYTES`].
pub(super) const STALL: Duration = Duration::from_secs(30);
/// Stalls of one pull, all layers together, that are forgiven: networks fail for a moment.
pub(super) const MAX_STALLS: u32 = 8;

/// The stalls of one pull.
#[derive(Debug)]
pub(super) struct Stalls {
    deadline: Duration,
    forgiven: AtomicU32,
}

impl Stalls {
    /// None so far; `deadline` is [`STALL`], or a test's.
    pub(super) fn new(deadline: Duration) -> Self {
        Self { deadline, forgiven: AtomicU32::new(0) }
    }

    /// One more; false where it is one too many.
    pub(super) fn forgive(&self) -> bool {
        self.forgiven.fetch_add(1, Ordering::Relaxed) < MAX_STALLS
    }
}

/// How fast one layer comes, over all its tries: who breaks off begins no new count.
#[derive(Debug)]
pub(super) struct Pace {
    digest: Digest,
    deadline: Duration,
    waited: Duration,
    came: u64,
}

impl Pace {
    /// Nothing was waited for yet.
    pub(super) fn new(digest: Digest, stalls: &Stalls) -> Self {
        Self { digest, deadline: stalls.deadline, waited: Duration::ZERO, came: 0 }
    }

    /// Waits for the network; only that counts, neither the disk nor other pulls.
    pub(super) async fn wait<T>(&mut self, network: impl Future<Output = T>) -> Result<T, PullError> {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(self.deadline.saturating_sub(self.waited), network).await;
        self.waited += begun.elapsed();
        outcome.map_err(|_| {
            (self.waited, self.came) = (Duration::ZERO, 0);
            PullError::Stalled { digest: self.digest, least: LEAST_BYTES, seconds: self.deadline.as_secs() }
        })
    }

    /// These came.
    pub(super) fn came(&mut self, bytes: u64) {
        self.came += bytes;
        if self.came >= LEAST_BYTES {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_comes_fast_enough_begins_a_new_count() {
        let stalls = Stalls::new(STALL);
        let mut pace = Pace::new(Digest::of(b""), &stalls);
        let later = || tokio::time::sleep(STALL / 3);
        // Waiting for anything else does not count.
        for _ in 0..9 {
            later().await;
            pace.wait(later()).await.unwrap();
            pace.came(LEAST_BYTES / 2);
        }
        pace.came(LEAST_BYTES);
        for _ in 0..2 {
            pace.wait(later()).await.unwrap();
            pace.came(1);
        }
        let stalled = pace.wait(tokio::time::sleep(STALL)).await.unwrap_err();
        assert_eq!(stalled.cause().code.as_str(), "registry_slow");
        assert_eq!(
            stalled.cause().message.as_str(),
            format!("layer {} comes too slowly: less than 256 KiB in 30 s", Digest::of(b""))
        );
        pace.wait(later()).await.unwrap();
        assert_eq!((0..2 * MAX_STALLS).filter(|_| stalls.forgive()).count(), MAX_STALLS as usize);
    }
}
