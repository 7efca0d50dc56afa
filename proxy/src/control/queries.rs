//! The agent's queries that wait for their answers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// What a query was answered.
type Answer = Option<Vec<u8>>;

/// By number; dropping a sender tells whoever waits that the connection has ended.
#[derive(Debug, Default)]
pub(super) struct Queries(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    ended: bool,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
}

impl Queries {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new number, and where its answer comes.
    pub(super) fn begin(&self) -> (u64, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        if !state.ended {
            state.waiting.retain(|_, waiting| !waiting.is_closed());
            state.waiting.insert(number, sender);
        }
        (number, answer)
    }

    pub(super) fn answer(&self, number: u64, answer: Answer) {
        if let Some(waiting) = self.state().waiting.remove(&number) {
            let _ = waiting.send(answer);
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, number: u64) {
        self.state().waiting.remove(&number);
    }

    /// No answers come any more.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.waiting.clear();
    }
}
