//! A span of time as people write it: `500ms`, `10s`, `2m`.

use std::{str::FromStr, time::Duration};

/// A span of time, more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            _ => 0,
        };
        match number.parse::<u32>() {
            Ok(number) if number > 0 && unit_ms > 0 => Ok(Self(Duration::from_millis(u64::from(number) * unit_ms))),
            _ => Err(format!("{text:?} is not a time such as 500ms, 10s or 2m")),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_and_are_not_zero() {
        assert_eq!("500ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("10s".parse(), Ok(Span(Duration::from_secs(10))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        for text in ["", "10", "0s", "-1s", "1h", "s", "1.5s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
