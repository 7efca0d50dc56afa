//! Whether an upstream works: connections are refused at once while it does not, and one at a time tries it again,
//! after pauses that double. Pure: the time is passed in.

use crate::control::Cause;
use std::time::{Duration, Instant};

/// Failures in a row of a kind that a busy upstream also shows, before it counts as failing.
const STRIKES: u32 = 3;

/// The pauses between tries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

/// What was observed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Untried,
    Ok,
    Failing(Failing),
}

/// An upstream that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) cause: Cause,
    pub(crate) message: String,
    pub(crate) since_ms: u64,
    pub(crate) retry_at: Instant,
    /// How often it failed since it last worked; the pause follows from it.
    failures: u32,
    /// Somebody is trying it right now.
    on_trial: bool,
}

/// The state of one upstream.
#[derive(Debug)]
pub(crate) struct Tracker {
    condition: Condition,
    strikes: u32,
    pauses: Pauses,
}

impl Tracker {
    pub(crate) fn new(pauses: Pauses) -> Self {
        Self { condition: Condition::Untried, strikes: 0, pauses }
    }

    pub(crate) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Whether a connection may be tried now. Where the upstream fails, this is the one trial after the pause, and
    /// it must be followed by [`Self::succeeded`], [`Self::failed`] or [`Self::abandoned`].
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        match &mut self.condition {
            Condition::Untried | Condition::Ok => true,
            Condition::Failing(failing) => {
                let free = now >= failing.retry_at && !failing.on_trial;
                failing.on_trial |= free;
                free
            }
        }
    }

    /// It answered. True where this is news.
    pub(crate) fn succeeded(&mut self) -> bool {
        self.strikes = 0;
        std::mem::replace(&mut self.condition, Condition::Ok) != Condition::Ok
    }

    /// It failed. `jitter` is from 0 to 1. True where this is news.
    pub(crate) fn failed(&mut self, cause: Cause, message: String, now: Instant, now_ms: u64, jitter: f64) -> bool {
        self.strikes += 1;
        let definite = !matches!(cause, Cause::TimedOut | Cause::Protocol);
        let (failures, since_ms) = match &self.condition {
            // Connections that were under way when it was found to fail say nothing new, unless they were the trial.
            Condition::Failing(failing) if !failing.on_trial => return false,
            Condition::Failing(failing) => (failing.failures + 1, failing.since_ms),
            Condition::Ok if !definite && self.strikes < STRIKES => return false,
            _ => (1, now_ms),
        };
        let longest = self.pauses.longest.min(self.pauses.first.saturating_mul(1 << (failures - 1).min(20)));
        let retry_at = now + longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.condition = Condition::Failing(Failing { cause, message, since_ms, retry_at, failures, on_trial: false });
        true
    }

    /// The trial ended without a result.
    pub(crate) fn abandoned(&mut self) {
        if let Condition::Failing(failing) = &mut self.condition {
            failing.on_trial = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tracker() -> Tracker {
        Tracker::new(Pauses { first: SECOND, longest: SECOND * 8 })
    }

    fn fail(tracker: &mut Tracker, cause: Cause, now: Instant) -> bool {
        tracker.failed(cause, String::new(), now, 0, 1.0)
    }

    #[test]
    fn a_definite_failure_counts_at_once_and_a_slow_answer_only_when_repeated() {
        let now = Instant::now();
        let mut definite = tracker();
        assert!(fail(&mut definite, Cause::AuthFailed, now));
        assert!(!definite.admit(now));

        let mut new = tracker();
        assert!(fail(&mut new, Cause::TimedOut, now), "of one that never worked nothing better is known");

        let mut slow = tracker();
        slow.succeeded();
        assert!(!fail(&mut slow, Cause::TimedOut, now));
        assert!(!fail(&mut slow, Cause::TimedOut, now));
        assert!(slow.admit(now));
        slow.succeeded();
        assert!(!fail(&mut slow, Cause::TimedOut, now), "a success in between forgives");
        assert!(!fail(&mut slow, Cause::TimedOut, now));
        assert!(fail(&mut slow, Cause::TimedOut, now));
        assert!(!slow.admit(now));
    }

    #[test]
    fn one_trial_after_each_pause_and_pauses_double_up_to_the_longest() {
        let mut now = Instant::now();
        let mut tracker = tracker();
        fail(&mut tracker, Cause::Unreachable, now);
        for pause in [1, 2, 4, 8, 8] {
            assert!(!tracker.admit(now + SECOND * pause - Duration::from_millis(1)));
            now += SECOND * pause;
            assert!(tracker.admit(now));
            assert!(!tracker.admit(now), "one at a time");
            assert!(fail(&mut tracker, Cause::Unreachable, now));
        }
        now += SECOND * 8;
        assert!(tracker.admit(now));
        tracker.abandoned();
        assert!(tracker.admit(now), "a trial without result leaves room for another");
        assert!(tracker.succeeded());
        assert!(tracker.admit(now) && tracker.admit(now));
        assert!(!tracker.succeeded(), "no news");
    }

    #[test]
    fn late_failures_do_not_lengthen_the_pause() {
        let now = Instant::now();
        let mut tracker = tracker();
        fail(&mut tracker, Cause::Unreachable, now);
        assert!(!fail(&mut tracker, Cause::Unreachable, now));
        assert!(tracker.admit(now + SECOND));
    }
}
