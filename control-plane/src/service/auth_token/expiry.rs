//! When a token ends, in the forms that clients send: `today`, `tomorrow`, a date or time in ISO 8601, or
//! seconds (or milliseconds) since the epoch.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, Utc};
use serde_json::Value;

/// Numbers from here on are milliseconds: as seconds they would be after the year 5000.
const FIRST_MILLISECONDS: f64 = 1e11;
/// The end of the year 9999, milliseconds.
const MAX_MS: i64 = 253_402_300_799_999;

const FORMS: &str = "must be today, tomorrow, an ISO 8601 date or time, or seconds since 1970";

/// The time that `value` means, milliseconds since the epoch; `now` decides what today is. A day without a
/// time is its beginning, but `today` and `tomorrow` are their ends, all in UTC.
pub(super) fn parse(value: &Value, now: DateTime<Utc>) -> Result<i64, String> {
    let at = match value {
        Value::Number(number) => number.as_f64().and_then(of_number),
        Value::String(text) => of_text(text.trim(), now),
        _ => None,
    };
    match at {
        None => Err(FORMS.to_owned()),
        Some(at) if at <= now.timestamp_millis() => Err("must be in the future".to_owned()),
        Some(at) if at > MAX_MS => Err("must be before the year 10000".to_owned()),
        Some(at) => Ok(at),
    }
}

fn of_number(number: f64) -> Option<i64> {
    let ms = if number.abs() >= FIRST_MILLISECONDS { number } else { number * 1000.0 };
    // As casts saturate, anything too large stays too large.
    number.is_finite().then_some(ms as i64)
}

fn of_text(text: &str, now: DateTime<Utc>) -> Option<i64> {
    let end_of_day = |days: u64| {
        let next = now.date_naive().checked_add_days(Days::new(days + 1))?;
        Some(next.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis() - 1)
    };
    match text.to_ascii_lowercase().as_str() {
        "today" => return end_of_day(0),
        "tomorrow" => return end_of_day(1),
        _ => {}
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != "20260101".len() {
        return text.parse().ok().and_then(of_number);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    if let Ok(time) = text.parse::<NaiveDateTime>() {
        return Some(time.and_utc().timestamp_millis());
    }
    let day = text.parse::<NaiveDate>().ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_means_its_time() {
        let now: DateTime<Utc> = "2025-06-15T10:30:00Z".parse().unwrap();
        let at = |value: Value| parse(&value, now);
        let time = |text: &str| Ok(text.parse::<DateTime<Utc>>().unwrap().timestamp_millis());
        for (value, expected) in [
            (json!("today"), "2025-06-15T23:59:59.999Z"),
            (json!(" Tomorrow "), "2025-06-16T23:59:59.999Z"),
            (json!("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z"),
            (json!("2026-01-01T02:00:00+02:00"), "2026-01-01T00:00:00Z"),
            (json!("2026-01-01T00:00:00.5"), "2026-01-01T00:00:00.5Z"),
            (json!("2026-01-01"), "2026-01-01T00:00:00Z"),
            (json!(1_767_225_600), "2026-01-01T00:00:00Z"),
            (json!(1_767_225_600_000_i64), "2026-01-01T00:00:00Z"),
            (json!("1767225600"), "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(value.clone()), time(expected), "{value}");
        }
        let past = [json!("2025-06-15T10:30:00Z"), json!("2025-06-15"), json!(0), json!(-5), json!("1")];
        let no_time = [json!("soon"), json!(""), json!(true), json!({}), json!("2026-13-01"), json!([1])];
        let far = [json!(1e300), json!("99999999999999999999")];
        for value in past.into_iter().chain(no_time).chain(far) {
            assert!(at(value.clone()).is_err(), "{value}");
        }
    }
}
