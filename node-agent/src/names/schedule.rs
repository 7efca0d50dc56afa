//! When a name is asked for again, and how long an answer is believed.

use std::time::Duration;

/// The next question: with the answer's own time, within these bounds. The relay gives the agent's answers on for
/// longer than the second.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// After an answer without records.
const AGAIN_WITHOUT: Duration = Duration::from_secs(30);
/// After a failure, doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// What an address is believed beyond the answer's time: the container may have been told it as late as the next
/// question, and connections live on where a name leads elsewhere every minute.
const LONGER: Duration = Duration::from_secs(600);
/// The longest time of an answer that is believed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long an answer holds: its own time, `ttl`, and some more.
pub(super) fn holds(ttl: Option<Duration>) -> Duration {
    ttl.unwrap_or_default().min(LONGEST) + LONGER
}

/// The pause after an answer.
pub(super) fn again(ttl: Option<Duration>) -> Duration {
    ttl.map_or(AGAIN_WITHOUT, |ttl| ttl.clamp(AGAIN.0, AGAIN.1))
}

/// The pause after so many failures in a row, from 1.
pub(super) fn retry(failures: u32) -> Duration {
    (FIRST_RETRY * 2_u32.saturating_pow(failures.saturating_sub(1).min(5))).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_beyond_the_next_question() {
        let seconds = [0, 1, 5, 60, 300, 3600, 86_400, 1 << 30].map(|ttl| Some(Duration::from_secs(ttl)));
        for ttl in seconds.into_iter().chain([None]) {
            assert!(holds(ttl) >= again(ttl) + LONGEST_RETRY * 5, "{ttl:?}");
            assert!((AGAIN.0..=AGAIN.1).contains(&again(ttl)), "{ttl:?}");
        }
        assert_eq!([1, 2, 3, 100].map(|failures| retry(failures).as_secs()), [1, 2, 4, 30]);
    }
}
