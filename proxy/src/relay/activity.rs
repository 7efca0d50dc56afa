//! When a connection last moved a byte.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Notes movement as milliseconds since the connection began.
#[derive(Debug)]
pub(crate) struct Activity {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Activity {
    /// Something moved.
    pub(crate) fn note(&self) {
        self.last_ms.store(self.begun.elapsed().as_millis() as u64, Relaxed);
    }

    /// Ends when nothing moved for as long. One timer, set again when it fires, and not with every byte.
    pub(crate) async fn silent_for(&self, limit: Duration) {
        loop {
            let silent = self.begun.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Relaxed)));
            match limit.checked_sub(silent) {
                Some(left) if !left.is_zero() => sleep(left).await,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_from_the_last_movement() {
        let activity = Activity::default();
        let begun = Instant::now();
        let moving = async {
            for _ in 0..3 {
                sleep(Duration::from_secs(8)).await;
                activity.note();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = activity.silent_for(Duration::from_secs(10)) => {}
            () = moving => {}
        }
        assert_eq!(begun.elapsed().as_secs(), 34);
    }
}
