//! Status changes on their way to somebody: the newest of each container, so that a slow reader misses steps in
//! between and never the last one, and nothing grows.

use super::status::Status;
use hoody_protocol::id::ContainerId;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Changes {
    waiting: Mutex<Waiting>,
    something: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    newest: BTreeMap<ContainerId, Status>,
    ended: bool,
}

impl Changes {
    /// Notes a status in place of the container's earlier one.
    pub(crate) fn put(&self, status: Status) {
        self.change(|waiting| _ = waiting.newest.insert(status.container, status));
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        self.change(|waiting| waiting.ended = true);
    }

    /// The next one; `None` after the end. For one reader.
    pub(crate) async fn next(&self) -> Option<Status> {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, status)) = waiting.newest.pop_first() {
                    return Some(status);
                }
                if waiting.ended {
                    return None;
                }
            }
            self.something.notified().await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.something.notify_one();
    }
}
