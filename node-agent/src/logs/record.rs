//! One line of conmon's `k8s-file` format: `2026-01-31T12:00:00.123456789+00:00 stdout F text`, where `P` instead of
//! `F` says that the line goes on in the next record of its stream. The text is the tenant's; whatever is no such
//! line is passed over.

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Nanoseconds since the Unix epoch.
    pub(super) at: u64,
    /// Standard error.
    pub(super) error: bool,
    /// The line goes on.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
}

/// Reads a line, without its end.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let at = time(std::str::from_utf8(fields.next()?).ok()?)?;
    let error = match fields.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = match fields.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Record { at, error, partial, text: fields.next().unwrap_or_default() })
}

/// Any bytes as a line: what is read is a part of it, and a time that can be told.
pub(crate) fn fuzzing(line: &[u8]) {
    let Some(record) = parse(line) else { return };
    assert!(line.ends_with(record.text));
    assert!(record.at / 1_000_000_000 < 253_402_300_800 + 100 * 3600, "beyond the year 9999");
}

/// A time in the form that conmon writes (RFC 3339 with nanoseconds and an offset).
fn time(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let clock = rest.get(..8)?;
    let mut clock = clock.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let rest = rest.get(8..)?;
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse::<i64>().ok()? };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - self::offset(offset)?;
    u64::try_from(seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?).ok()
}

/// Seconds east of Greenwich.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    // Two digits each: longer ones would not fit.
    let (hours, minutes) = rest.split_once(':').filter(|_| rest.len() == 5)?;
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

/// Days since the Unix epoch of a day of the Gregorian calendar, counted in eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_read() {
        let record = parse(b"2026-11-22T03:19:51.415830099+00:00 stderr F two words").unwrap();
        assert_eq!(record, Record { at: 1_795_317_591_415_830_099, error: true, partial: false, text: b"two words" });
        let record = parse(b"2026-11-22T05:19:51.415830099+02:00 stdout P ").unwrap();
        assert_eq!(record, Record { at: 1_795_317_591_415_830_099, error: false, partial: true, text: b"" });
        assert_eq!(parse(b"1970-01-01T00:00:01Z stdout F").unwrap().at, 1_000_000_000);
        assert_eq!(parse(b"2024-02-29T00:00:00Z stdout F x").unwrap().at, 1_709_164_800_000_000_000);
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "hello",
            "2026-11-22T03:19:51+00:00 stdin F x",
            "2026-13-22T03:19:51Z stdout F x",
            "2026-11-22T03:19:51Z stdout X x",
            "0001-01-01T00:00:00Z stdout F x",
            "2026-11-22T03:1é:51Z stdout F x",
            "2026-11-22T03:19:51+9223372036854775807:00 stdout F x",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }

        #[test]
        fn any_record_comes_back(seconds in 0u64..4_000_000_000, nanoseconds in 0u32..1_000_000_000, text in "[ -~]{0,40}") {
            let at = std::time::Duration::new(seconds, nanoseconds);
            let days = seconds / 86_400;
            let of_day = seconds % 86_400;
            // The inverse, by trying: independent of the formula above.
            let (mut year, mut left) = (1970, days);
            let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            let length = |year: u64| if leap(year) { 366 } else { 365 };
            while left >= length(year) { left -= length(year); year += 1; }
            let months = [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while left >= months[month] { left -= months[month]; month += 1; }
            let line = format!("{year:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{nanoseconds:09}+00:00 stdout F {text}",
                month + 1, left + 1, of_day / 3600, of_day / 60 % 60, of_day % 60);
            let record = parse(line.as_bytes()).unwrap();
            prop_assert_eq!(u128::from(record.at), at.as_nanos());
            prop_assert_eq!(record.text, text.as_bytes());
        }
    }
}
