//! Wake-ups for requests that wait until a container has reached a state. Only a hint: the waiter
//! re-reads the store, and looks again after a pause in case another replica has the link.

use hoody_protocol::id::ContainerId;
use std::{future::Future, time::Duration};
use tokio::{sync::broadcast, time::Instant};

/// How long a waiter trusts that a change would have been announced here.
const RECHECK: Duration = Duration::from_millis(250);
/// Announcements that a slow waiter may be behind before it simply re-reads.
const BACKLOG: usize = 1024;

/// Announces containers, or others, whose stored state changed.
#[derive(Debug, Clone)]
pub struct Changes<T = ContainerId>(broadcast::Sender<T>);

impl<T: Clone> Default for Changes<T> {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl<T: Copy + PartialEq> Changes<T> {
    /// Announces that the store holds something new of `what`.
    pub fn announce(&self, what: T) {
        // Without waiters there is nobody to tell.
        let _ = self.0.send(what);
    }

    /// Calls `check` until it gives something or the deadline has passed: at once, on every
    /// announcement of `what`, and every [`RECHECK`].
    pub async fn wait_for<R, E, F: Future<Output = Result<Option<R>, E>>>(
        &self,
        what: T,
        deadline: Instant,
        mut check: impl FnMut() -> F,
    ) -> Result<Option<R>, E> {
        let mut announced = self.0.subscribe();
        loop {
            if let Some(found) = check().await? {
                return Ok(Some(found));
            }
            let recheck = Instant::now() + RECHECK;
            loop {
                let until = recheck.min(deadline);
                match tokio::time::timeout_at(until, announced.recv()).await {
                    Ok(Ok(changed)) if changed != what => continue,
                    _ => break,
                }
            }
            if Instant::now() >= deadline {
                return check().await;
            }
        }
    }
}
