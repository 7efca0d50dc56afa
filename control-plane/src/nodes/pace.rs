//! How much one node may ask of us: a bucket that fills at a rate up to a burst. What a well-behaved agent
//! does stays far below; a hostile one waits, and costs no more than the rate.

use std::time::Duration;
use tokio::time::Instant;

/// A bucket.
#[derive(Debug)]
pub(super) struct Pace {
    left: f64,
    at: Instant,
    burst: f64,
    per_second: f64,
}

impl Pace {
    /// A full bucket.
    pub(super) fn new(burst: f64, per_second: f64) -> Self {
        Self { left: burst, at: Instant::now(), burst, per_second }
    }

    fn fill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + earned).min(self.burst);
        self.at = now;
    }

    /// Takes `count` and gives the time to wait for them.
    pub(super) fn take(&mut self, count: usize, now: Instant) -> Duration {
        self.fill(now);
        self.left -= count as f64;
        Duration::from_secs_f64((-self.left / self.per_second).max(0.0))
    }

    /// Takes one where there is one.
    pub(super) fn try_take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.left >= 1.0;
        if there {
            self.left -= 1.0;
        }
        there
    }

    /// True where nothing was taken for so long that the bucket is full: it need not be kept.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left >= self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace { at: start, ..Pace::new(4096.0, 200.0) };
        assert_eq!(pace.take(4096, start), Duration::ZERO);
        assert_eq!(pace.take(200, start), Duration::from_secs(1));
        assert_eq!(pace.take(0, start + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(pace.take(200, start + Duration::from_secs(2)), Duration::ZERO);
        assert!(!pace.try_take(start + Duration::from_secs(2)));
        let later = start + Duration::from_secs(3600);
        assert!(pace.is_full(later) && pace.try_take(later));
        assert_eq!(pace.left, 4095.0, "what is not used does not add up");
    }
}
