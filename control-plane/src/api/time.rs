//! Times on the wire: RFC 3339, UTC, with milliseconds.

use chrono::{DateTime, SecondsFormat, Utc};

/// `2026-01-31T12:00:00.000Z` for milliseconds since the Unix epoch. A time outside what a calendar can
/// express reads as the epoch itself.
pub fn rfc3339(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_carry_milliseconds_and_utc() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
