//! Times on the wire: RFC 3339, UTC, with milliseconds.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

/// `2026-01-31T12:00:00.000Z` for milliseconds since the Unix epoch. A time outside what a calendar can
/// express reads as the epoch itself.
pub fn rfc3339(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What is said of a time that [`parse`] does not take.
pub const PROBLEM: &str = "must be a time (2026-01-31T12:00:00Z) or a day (2026-01-31)";

/// Which moment a day without a time stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// Its first.
    Begin,
    /// The first that no longer belongs to it.
    End,
}

/// Milliseconds since the Unix epoch of an RFC 3339 time, or of a day in UTC.
pub fn parse(text: &str, day: Day) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let date = text.parse::<NaiveDate>().ok()?;
    let date = if day == Day::End { date.succ_opt()? } else { date };
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_days_are_read() {
        assert_eq!(parse("2023-11-14T23:13:20.123+01:00", Day::End), Some(1_700_000_000_123));
        assert_eq!(parse("1970-01-02", Day::Begin), Some(86_400_000));
        assert_eq!(parse("1970-01-02", Day::End), Some(2 * 86_400_000));
        for text in ["", "yesterday", "2023-13-01", "2023-11-14T23:13:20"] {
            assert_eq!(parse(text, Day::Begin), None, "{text}");
        }
    }

    #[test]
    fn times_carry_milliseconds_and_utc() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
