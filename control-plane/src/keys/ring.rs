//! The keys of one purpose: one signs, all verify. A new key signs only once every replica can know it, so
//! that none gets what it cannot verify: replicas read the keys every [`RELOAD_INTERVAL`].

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// How often the stored keys are read.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Age at which a key begins to sign, where there is an older one.
const SIGNS_AT_AGE: Duration = Duration::from_secs(30);

/// A key, and when it was made (milliseconds since the epoch).
#[derive(Debug)]
pub(super) struct Dated<K> {
    pub(super) key: K,
    pub(super) created_at: i64,
}

/// The keys, newest first; never empty.
#[derive(Debug)]
pub(super) struct Ring<K>(RwLock<Arc<Vec<Dated<K>>>>);

impl<K> Ring<K> {
    /// A ring of these keys, newest first; `None` where there are none.
    pub(super) fn new(keys: Vec<Dated<K>>) -> Option<Self> {
        (!keys.is_empty()).then(|| Self(RwLock::new(Arc::new(keys))))
    }

    /// Puts other keys in their place; nothing where there are none.
    pub(super) fn replace(&self, keys: Vec<Dated<K>>) {
        if !keys.is_empty() {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Arc<Vec<Dated<K>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls `work` with the key that signs at `now` (milliseconds).
    pub(super) fn with_signing<T>(&self, now: i64, work: impl FnOnce(&K) -> T) -> T {
        let keys = self.all();
        let old_enough = now - SIGNS_AT_AGE.as_millis() as i64;
        let chosen = keys.iter().find(|key| key.created_at <= old_enough).or(keys.last());
        work(&chosen.expect("a ring is never empty").key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[(char, i64)]) -> Ring<char> {
        Ring::new(keys.iter().map(|(key, created_at)| Dated { key: *key, created_at: *created_at }).collect()).unwrap()
    }

    #[test]
    fn a_new_key_signs_when_everybody_knows_it() {
        let ring = ring(&[('b', 100_000), ('a', 0)]);
        assert_eq!(ring.with_signing(129_999, |key| *key), 'a');
        assert_eq!(ring.with_signing(130_000, |key| *key), 'b');
        ring.replace(Vec::new());
        assert_eq!(ring.all().len(), 2, "a ring is never empty");
    }

    #[test]
    fn the_first_key_signs_at_once() {
        assert_eq!(ring(&[('a', 100_000)]).with_signing(100_000, |key| *key), 'a');
    }
}
