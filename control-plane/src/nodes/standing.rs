//! What a link has at work: each piece once, and after an error not again before a pause is over. Whoever drives it reads
//! the store anew whenever [`Standing::next`] returns.

use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Pause before something is tried again, doubled up to the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The store is read anew after this time even without a wake-up.
const REREAD: Duration = Duration::from_secs(60);

/// Work in progress, by key.
pub(super) struct Standing<'a, K, T> {
    work: FuturesUnordered<BoxFuture<'a, (K, T)>>,
    busy: HashSet<K>,
    paused: HashMap<K, (Instant, Duration)>,
}

impl<'a, K: Copy + Eq + Hash + Send + 'a, T: 'a> Standing<'a, K, T> {
    pub(super) fn new() -> Self {
        Self { work: FuturesUnordered::new(), busy: HashSet::new(), paused: HashMap::new() }
    }

    /// Forgets the pauses of what is not there any more.
    pub(super) fn retain(&mut self, is_there: impl Fn(K) -> bool) {
        self.paused.retain(|key, _| is_there(*key));
    }

    /// True where it is at work.
    pub(super) fn is_busy(&self, key: K) -> bool {
        self.busy.contains(&key)
    }

    /// True where it is neither at work nor paused.
    pub(super) fn is_free(&self, key: K) -> bool {
        !self.is_busy(key) && self.paused.get(&key).is_none_or(|(until, _)| *until <= Instant::now())
    }

    /// How much is at work.
    pub(super) fn len(&self) -> usize {
        self.busy.len()
    }

    /// Begins work; where it is at work already, nothing.
    pub(super) fn begin(&mut self, key: K, work: impl Future<Output = T> + Send + 'a) {
        if self.busy.insert(key) {
            self.work.push(work.map(move |ended| (key, ended)).boxed());
        }
    }

    /// Waits for the end of some work, a wake-up, the end of a pause, or the time to read the store anew.
    pub(super) async fn next(&mut self, wake: &Notify) -> Option<(K, T)> {
        let now = Instant::now();
        let pauses = self.paused.values().map(|(until, _)| *until).filter(|until| *until > now);
        let reread = now + REREAD;
        let until = pauses.min().map_or(reread, |until| until.min(reread));
        tokio::select! {
            () = wake.notified() => None,
            () = tokio::time::sleep_until(until) => None,
            Some((key, ended)) = self.work.next() => {
                self.busy.remove(&key);
                Some((key, ended))
            }
        }
    }

    /// It went well: the next pause is the first again.
    pub(super) fn went_well(&mut self, key: K) {
        self.paused.remove(&key);
    }

    /// It is tried again after a pause, `longest` at most, which this gives.
    pub(super) fn pause(&mut self, key: K, longest: Duration) -> Duration {
        let pause = self.paused.get(&key).map_or(FIRST_PAUSE, |(_, last)| *last * 2).min(longest);
        self.paused.insert(key, (Instant::now() + pause, pause));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test(start_paused = true)]
    async fn each_piece_stands_once_and_a_failed_one_waits_longer_each_time() {
        let (mut standing, wake) = (Standing::<u8, bool>::new(), Notify::new());
        standing.begin(1, pending());
        standing.begin(1, ready(true));
        assert_eq!((standing.len(), standing.is_free(1), standing.is_free(2)), (1, false, true));
        standing.begin(2, ready(false));
        assert_eq!(standing.next(&wake).await, Some((2, false)));
        for expected in [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4] {
            let begun = Instant::now();
            assert_eq!(standing.pause(2, LONGEST_PAUSE), expected);
            assert!(!standing.is_free(2) && !standing.is_busy(2));
            assert_eq!(standing.next(&wake).await, None);
            assert_eq!((begun.elapsed(), standing.is_free(2)), (expected, true));
        }
        assert_eq!(standing.pause(2, FIRST_PAUSE), FIRST_PAUSE);
        standing.went_well(2);
        assert!(standing.is_free(2));
        wake.notify_one();
        assert_eq!(standing.next(&wake).await, None);
        standing.pause(3, LONGEST_PAUSE);
        standing.retain(|key| key != 3);
        assert!(standing.is_free(3));
    }
}
