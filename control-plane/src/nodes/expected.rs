//! Who waits for a stream that a node will offer, and from which server it is taken.

use hoody_protocol::id::ServerId;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Those who wait, by what they wait for. Cheap to clone.
#[derive(Debug)]
pub(super) struct Expected<K: Copy + Eq + Hash, V>(Arc<Mutex<Inner<K, V>>>);

#[derive(Debug)]
struct Inner<K, V> {
    next: u64,
    waiting: HashMap<K, Waiting<V>>,
}

#[derive(Debug)]
struct Waiting<V> {
    number: u64,
    server: ServerId,
    sender: oneshot::Sender<V>,
}

impl<K: Copy + Eq + Hash, V> Default for Expected<K, V> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { next: 0, waiting: HashMap::new() })))
    }
}

impl<K: Copy + Eq + Hash, V> Clone for Expected<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Copy + Eq + Hash, V> Expected<K, V> {
    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `key` from `server`; whoever waited for it before waits no more.
    pub(super) fn expect(&self, key: K, server: ServerId) -> Expectation<K, V> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        inner.next += 1;
        let number = inner.next;
        inner.waiting.insert(key, Waiting { number, server, sender });
        Expectation { place: Place { all: self.clone(), key, number }, receiver }
    }

    /// Hands over what `server` offers; gives it back where nobody waits for it from there.
    pub(super) fn deliver(&self, key: K, server: ServerId, value: V) -> Result<(), V> {
        let waiting = {
            let mut inner = self.lock();
            let is_its = inner.waiting.get(&key).is_some_and(|waiting| waiting.server == server);
            if is_its { inner.waiting.remove(&key) } else { None }
        };
        match waiting {
            Some(waiting) => waiting.sender.send(value),
            None => Err(value),
        }
    }
}

/// A place among those who wait.
#[derive(Debug)]
pub(super) struct Expectation<K: Copy + Eq + Hash, V> {
    place: Place<K, V>,
    receiver: oneshot::Receiver<V>,
}

impl<K: Copy + Eq + Hash, V> Expectation<K, V> {
    /// What was offered; `None` where somebody else waits for it now.
    pub(super) async fn arrives(self) -> Option<V> {
        let Self { place: _place, receiver } = self;
        receiver.await.ok()
    }
}

/// Given up when it is dropped.
#[derive(Debug)]
struct Place<K: Copy + Eq + Hash, V> {
    all: Expected<K, V>,
    key: K,
    number: u64,
}

impl<K: Copy + Eq + Hash, V> Drop for Place<K, V> {
    fn drop(&mut self) {
        let mut inner = self.all.lock();
        if inner.waiting.get(&self.key).is_some_and(|waiting| waiting.number == self.number) {
            inner.waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_offer_goes_to_who_waits_for_it_from_there_and_to_the_last_of_them() {
        let all: Expected<u8, &str> = Expected::default();
        let [one, other] = [1, 2].map(|byte| ServerId::from_bytes([byte; 12]));
        let first = all.expect(7, one);
        assert_eq!(all.deliver(7, other, "forged"), Err("forged"));
        let second = all.expect(7, one);
        // The end of the first must not take the second's place with it.
        assert_eq!(first.arrives().await, None);
        assert_eq!(all.deliver(7, one, "offer"), Ok(()));
        assert_eq!(second.arrives().await, Some("offer"));
        drop(all.expect(7, one));
        assert_eq!(all.deliver(7, one, "late"), Err("late"));
    }
}
