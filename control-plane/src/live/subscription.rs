//! One listener's way through the order of delivery.

use super::hub::Live;
use crate::{
    event::Event,
    store::{
        Store, StoreError,
        event::{self, Filter},
    },
};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::mpsc;

/// Missed events read at once.
const PAGE: u32 = 100;

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The listener did not keep up.
    Lagged,
    /// This process ends.
    Stopping,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// An event, with its place in the order.
    Event(i64, Arc<Event>),
    /// Nothing more.
    End(End),
}

/// A listener. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    live: Live,
    id: u64,
    filter: Filter,
    queue: mpsc::Receiver<Arc<Event>>,
    /// The last sequence that was looked at.
    position: i64,
    /// Up to here events are read from the store; behind it they come through the queue.
    replay_until: i64,
    missed: VecDeque<Event>,
}

impl Subscription {
    pub(super) fn new(
        live: Live,
        id: u64,
        filter: Filter,
        queue: mpsc::Receiver<Arc<Event>>,
        position: i64,
        replay_until: i64,
    ) -> Self {
        Self { live, id, filter, queue, position, replay_until, missed: VecDeque::new() }
    }

    /// Where to resume: everything up to here was given out, or is not for this listener.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The next event. May be dropped while it waits without losing one.
    pub async fn next(&mut self, store: &Store) -> Result<Next, StoreError> {
        while self.position < self.replay_until {
            if let Some(event) = self.missed.pop_front() {
                let sequence = event.sequence.unwrap_or(self.position);
                self.position = sequence;
                return Ok(Next::Event(sequence, Arc::new(event)));
            }
            let replay = event::replay(store, &self.filter, self.position, self.replay_until, PAGE);
            let page = Box::pin(replay).await?;
            if page.is_empty() {
                self.position = self.replay_until;
            }
            self.missed = page.into();
        }
        loop {
            let Some(event) = self.queue.recv().await else {
                let end = if self.live.is_closed() { End::Stopping } else { End::Lagged };
                return Ok(Next::End(end));
            };
            let Some(sequence) = event.sequence.filter(|sequence| *sequence > self.position) else { continue };
            self.position = sequence;
            if self.filter.matches(&event) {
                return Ok(Next::Event(sequence, event));
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.live.unsubscribe(self.id, &self.filter);
    }
}
