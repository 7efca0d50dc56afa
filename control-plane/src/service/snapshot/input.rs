//! What clients say of snapshots, and the check of every field.

use crate::error::ServiceError;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Longest name and alias.
const MAX_CHARS: usize = 100;
/// Longest time until a snapshot expires.
const MAX_EXPIRY_DAYS: u32 = 3650;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A new snapshot as clients write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct SnapshotInput {
    /// The name; absent: one is made.
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-zA-Z0-9-_]+$")]
    pub name: Option<String>,
    /// Another name, for people.
    #[schema(max_length = 100)]
    pub alias: Option<String>,
    /// Another name of `alias`.
    pub description: Option<String>,
    /// Days after which it is deleted; absent: it is kept.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 3650)]
    pub expiry: Option<Value>,
}

/// A new alias as clients write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct AliasInput {
    /// The alias; null: none.
    #[serde(default, deserialize_with = "crate::api::json::present")]
    #[schema(value_type = Option<String>, required = true)]
    pub alias: Option<Option<String>>,
}

/// A new snapshot whose every field is valid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: Option<String>,
    pub(super) alias: Option<String>,
    /// Milliseconds.
    pub(super) lifetime: Option<i64>,
}

impl SnapshotInput {
    /// Checks every field.
    pub(super) fn check(self) -> Result<Wanted, ServiceError> {
        let mut problems = BTreeMap::new();
        let mut note = |field: &str, problem: String| _ = problems.insert(field.to_owned(), problem);
        if self.name.as_deref().is_some_and(|name| !is_name(name)) {
            note("name", format!("takes 1 to {MAX_CHARS} letters, digits, hyphens and underscores"));
        }
        if self.alias.is_some() && self.description.is_some() && self.alias != self.description {
            note("description", "is another name of \"alias\": give one of them".to_owned());
        }
        let field = if self.alias.is_some() { "alias" } else { "description" };
        let alias = parse_alias(self.alias.or(self.description)).unwrap_or_else(|problem| {
            note(field, problem);
            None
        });
        let days = match &self.expiry {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_f64().filter(|days| days.fract() == 0.0) {
                Some(days) if (1.0..=f64::from(MAX_EXPIRY_DAYS)).contains(&days) => Some(days as i64),
                _ => {
                    note("expiry", format!("must be a whole number of days from 1 to {MAX_EXPIRY_DAYS}"));
                    None
                }
            },
        };
        if !problems.is_empty() {
            return Err(ServiceError::Invalid(problems));
        }
        Ok(Wanted { name: self.name, alias, lifetime: days.map(|days| days * DAY_MS) })
    }
}

impl AliasInput {
    /// The alias, checked.
    pub(super) fn check(self) -> Result<Option<String>, ServiceError> {
        let alias =
            self.alias.ok_or_else(|| ServiceError::invalid("alias", "is required: a text, or null for none"))?;
        parse_alias(alias).map_err(|problem| ServiceError::invalid("alias", problem))
    }
}

/// Letters, digits, hyphens and underscores.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_CHARS).contains(&name.len()) && name.bytes().all(allowed)
}

/// A text of a bounded length; an empty one is none.
fn parse_alias(alias: Option<String>) -> Result<Option<String>, String> {
    let Some(alias) = alias.filter(|alias| !alias.is_empty()) else { return Ok(None) };
    if alias.chars().count() > MAX_CHARS || alias.chars().any(char::is_control) {
        return Err(format!("takes at most {MAX_CHARS} characters, without control characters"));
    }
    Ok(Some(alias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(input: Value) -> Vec<String> {
        match serde_json::from_value::<SnapshotInput>(input).unwrap().check() {
            Err(ServiceError::Invalid(problems)) => problems.into_keys().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_bad_field_is_named() {
        let bad = json!({"name": "a b", "alias": "x".repeat(101), "expiry": 0});
        assert_eq!(fields(bad), ["alias", "expiry", "name"]);
        for expiry in [json!(0), json!(3651), json!(1.5), json!("7"), json!(-1), json!(1e300)] {
            assert_eq!(fields(json!({"expiry": expiry})), ["expiry"], "{expiry}");
        }
        assert_eq!(fields(json!({"alias": "a", "description": "b"})), ["description"]);
        assert_eq!(fields(json!({"description": "a\u{0}b"})), ["description"]);
    }

    #[test]
    fn names_aliases_and_days_are_taken_as_they_are_meant() {
        let check = |input: Value| serde_json::from_value::<SnapshotInput>(input).unwrap().check().unwrap();
        let plain = Wanted { name: None, alias: None, lifetime: None };
        assert_eq!(check(json!({})), plain);
        assert_eq!(check(json!({"alias": "", "expiry": null})), plain);
        let full = check(json!({"name": "before-upgrade_1", "description": "Before v2", "expiry": 7.0}));
        assert_eq!(full.name.as_deref(), Some("before-upgrade_1"));
        assert_eq!((full.alias.as_deref(), full.lifetime), (Some("Before v2"), Some(7 * DAY_MS)));
    }

    #[test]
    fn an_alias_must_be_there_and_may_be_null() {
        let check = |input: Value| serde_json::from_value::<AliasInput>(input).unwrap().check();
        assert!(check(json!({})).is_err());
        assert_eq!(check(json!({"alias": null})).unwrap(), None);
        assert_eq!(check(json!({"alias": "x"})).unwrap().as_deref(), Some("x"));
    }
}
