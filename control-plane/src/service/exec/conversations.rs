//! How many processes, terminals and logs one user follows at once in this process, and the end of all of them when
//! it stops.

use crate::error::ServiceError;
use hoody_protocol::id::UserId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A process that a request waits for.
    Process,
    /// A connection to a terminal.
    Terminal,
    /// A log.
    Log,
    /// An archive of a container that is downloaded.
    Export,
    /// An archive of a container that is uploaded.
    Import,
}

impl Kind {
    fn most(self) -> usize {
        match self {
            Self::Process => 64,
            Self::Terminal => 32,
            Self::Log => 32,
            Self::Export | Self::Import => 2,
        }
    }
}

/// All conversations of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Conversations {
    counts: Arc<Mutex<HashMap<(UserId, Kind), usize>>>,
    closed: watch::Sender<bool>,
}

impl Default for Conversations {
    fn default() -> Self {
        Self { counts: Arc::default(), closed: watch::Sender::new(false) }
    }
}

impl Conversations {
    /// A place for one more; 429 where the user has as many as they may have.
    pub fn begin(&self, user: UserId, kind: Kind) -> Result<Conversation, ServiceError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((user, kind)).or_default();
        if *count >= kind.most() {
            return Err(ServiceError::RateLimited { retry_after_s: 1 });
        }
        *count += 1;
        Ok(Conversation { all: self.clone(), user, kind })
    }

    /// Ends those that go on by themselves: the process stops.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Conversation {
    all: Conversations,
    user: UserId,
    kind: Kind,
}

impl Conversation {
    /// Returns when the process stops.
    pub async fn closed(&self) {
        let mut closed = self.all.closed.subscribe();
        // The sender is in `self`.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let mut counts = self.all.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&(self.user, self.kind)) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&(self.user, self.kind));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_counted_per_user_and_kind_and_come_back() {
        let all = Conversations::default();
        let [ann, bob] = [1, 2].map(|byte| UserId::from_bytes([byte; 12]));
        let mut held: Vec<_> = (0..Kind::Log.most()).map(|_| all.begin(ann, Kind::Log).unwrap()).collect();
        assert!(matches!(all.begin(ann, Kind::Log), Err(ServiceError::RateLimited { .. })));
        assert!(all.begin(ann, Kind::Process).is_ok() && all.begin(bob, Kind::Log).is_ok());
        held.pop();
        let last = all.begin(ann, Kind::Log).unwrap();
        all.close();
        last.closed().await;
    }
}
