//! The fields that clients give containers, each with its check. Problems are worded to follow the
//! field's name.

use hoody_protocol::id::RealmId;
use serde_json::Value;

/// Longest name.
const MAX_NAME_CHARS: usize = 100;
/// Shortest name of a new container.
pub(in crate::service) const MIN_NEW_NAME_CHARS: usize = 3;
/// Longest remark.
const MAX_COMMENT_CHARS: usize = 16_000;
/// Longest key of an environment variable.
const MAX_ENV_KEY_CHARS: usize = 128;
/// Longest value of an environment variable, where several are set at once.
pub(in crate::service) const MAX_ENV_VALUE_CHARS: usize = 4096;
/// Bytes of keys and values of one container's environment.
const MAX_ENV_BYTES: usize = 512 << 10;
/// Realms of one container.
const MAX_REALMS: usize = 64;
/// Longest host name: one DNS label.
const MAX_HOSTNAME: usize = 63;

type Checked = Result<(), String>;

/// Letters, digits, hyphens and underscores.
pub(in crate::service) fn check_name(name: &str, min: usize) -> Checked {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (min..=MAX_NAME_CHARS).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!("takes {min} to {MAX_NAME_CHARS} letters, digits, hyphens and underscores"))
}

/// The host name for a container's name: one DNS label (RFC 1123).
pub(super) fn hostname(name: &str) -> String {
    let label: String = name.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect();
    let label = label.trim_matches('-');
    let label = label[..label.len().min(MAX_HOSTNAME)].trim_end_matches('-');
    if label.is_empty() { "container".to_owned() } else { label.to_owned() }
}

/// Three or six hexadecimal digits, with or without `#`.
pub(super) fn check_color(color: &str) -> Checked {
    let digits = color.strip_prefix('#').unwrap_or(color);
    if matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err("must be three or six hexadecimal digits, such as #3b82f6".to_owned())
}

/// Text of a bounded length.
pub(super) fn check_comment(comment: &str) -> Checked {
    // PostgreSQL cannot store NUL.
    if comment.chars().count() <= MAX_COMMENT_CHARS && !comment.contains('\0') {
        return Ok(());
    }
    Err(format!("takes at most {MAX_COMMENT_CHARS} characters, none of them NUL"))
}

/// Realm ids, each once.
pub(super) fn parse_realms(texts: &[String]) -> Result<Vec<RealmId>, String> {
    let mut realms = texts
        .iter()
        .map(|text| text.parse().map_err(|error| format!("has an item that is not a realm id: {error}")))
        .collect::<Result<Vec<RealmId>, _>>()?;
    realms.sort_unstable();
    realms.dedup();
    if realms.len() > MAX_REALMS {
        return Err(format!("takes at most {MAX_REALMS} realms"));
    }
    Ok(realms)
}

/// A key of an environment variable: a name as shells have them, outside the platform's own.
pub(in crate::service) fn check_env_key(key: &str) -> Checked {
    let mut bytes = key.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || key.len() > MAX_ENV_KEY_CHARS || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!(
            "is not a valid key: 1 to {MAX_ENV_KEY_CHARS} letters, digits and underscores, not beginning with a digit"
        ));
    }
    if key.starts_with("HOODY_") {
        return Err("is reserved: keys that begin with HOODY_ are set by the platform".to_owned());
    }
    Ok(())
}

/// A value of an environment variable.
pub(in crate::service) fn check_env_value(value: &str, max_chars: usize, max_bytes: usize) -> Checked {
    if value.is_empty() || value.chars().count() > max_chars || value.len() > max_bytes {
        return Err(format!("takes 1 to {max_chars} characters"));
    }
    if value.contains('\0') {
        return Err("must not contain NUL".to_owned());
    }
    Ok(())
}

/// The text of a value as sent: JSON clients also write numbers and flags.
pub(in crate::service) fn env_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("must be a text".to_owned()),
    }
}

/// The whole environment must fit into a specification.
pub(in crate::service) fn check_env_size<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Checked {
    let (count, bytes) =
        entries.fold((0, 0), |(count, bytes), (key, value)| (count + 1, bytes + key.len() + value.len()));
    let max = hoody_protocol::container::MAX_ENV;
    if count > max {
        return Err(format!("takes at most {max} variables"));
    }
    if bytes > MAX_ENV_BYTES {
        return Err(format!("takes at most {MAX_ENV_BYTES} bytes of keys and values in all"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for name in ["web", "web-server_2", &"a".repeat(100)] {
            assert!(check_name(name, 3).is_ok(), "{name}");
        }
        for name in ["", "ab", "../etc", "a b c", "naïve", "a/b", "abc\0", &"a".repeat(101)] {
            assert!(check_name(name, 3).is_err(), "{name:?}");
        }
    }

    #[test]
    fn hostnames_are_labels() {
        assert_eq!(hostname("Web_Server"), "web-server");
        assert_eq!(hostname("---"), "container");
        assert_eq!(hostname(&format!("{}-b", "a".repeat(62))), "a".repeat(62));
    }

    #[test]
    fn colors() {
        for color in ["#fff", "3B82F6", "#3b82f6", "abc"] {
            assert!(check_color(color).is_ok(), "{color}");
        }
        for color in ["", "#", "#ff", "#fffff", "red", "#gggggg", "##ffffff"] {
            assert!(check_color(color).is_err(), "{color}");
        }
    }

    #[test]
    fn environment_keys_and_values() {
        for key in ["PATH", "_x", "a1", "HOODY"] {
            assert!(check_env_key(key).is_ok(), "{key}");
        }
        for key in ["", "1A", "A-B", "A=B", "A B", "HOODY_TOKEN", "Ä", "A\0", &"A".repeat(129)] {
            assert!(check_env_key(key).is_err(), "{key:?}");
        }
        let value = |text: &str| check_env_value(text, 4096, 32768);
        assert!(value("x").is_ok() && value(&"ß".repeat(4096)).is_ok());
        assert!(value("").is_err() && value("a\0b").is_err() && value(&"x".repeat(4097)).is_err());
    }

    #[test]
    fn the_environment_is_bounded_as_a_whole() {
        let value = "x".repeat(32768);
        let entries = |count| (0..count).map(|_| ("K", value.as_str()));
        assert!(check_env_size(entries(15)).is_ok());
        assert!(check_env_size(entries(17)).is_err());
        assert!(check_env_size((0..1025).map(|_| ("K", "v"))).is_err());
    }

    proptest! {
        #[test]
        fn every_valid_name_gives_a_label(name in "[a-zA-Z0-9_-]{1,100}") {
            let label = hostname(&name);
            prop_assert!((1..=63).contains(&label.len()));
            prop_assert!(!label.starts_with('-') && !label.ends_with('-'));
        }
    }
}
