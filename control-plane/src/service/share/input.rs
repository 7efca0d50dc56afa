//! What clients write of shares, in all forms, and the check of every field.

use crate::{error::ServiceError, store::share::Target};
use hoody_protocol::{
    share::{MOUNT_POINT, is_name, normal_path, normal_place},
    time::now_ms,
};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, str::FromStr};
use utoipa::ToSchema;

const MAX_DESCRIPTION_CHARS: usize = 1000;
/// Times from here on are milliseconds: as seconds they would be after the year 5000.
const FIRST_MILLISECONDS: f64 = 1e11;
/// The end of the year 9999, milliseconds.
const MAX_MS: f64 = 253_402_300_799_999.0;
const ID_CHARS: usize = 24;

/// A new share.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = ShareCreateInput)]
pub struct CreateInput {
    /// The folder in the source container, absolute. No system path: `/`, `/proc`, `/sys`, `/dev`, `/mnt`.
    #[schema(min_length = 1, max_length = 4096, pattern = "^/.*")]
    pub source_path: Option<String>,
    /// Another name of `source_path`.
    pub path: Option<String>,
    /// `readonly` (`ro`) or `readwrite` (`rw`).
    pub mode: Option<String>,
    /// The container that gets it; either this or a project.
    pub target_container_id: Option<String>,
    /// The project whose containers get it, also those to come.
    pub target_project_id: Option<String>,
    /// It appears as `/mnt/shares/<alias>`; absent: as `/mnt/shares/<id>`.
    #[schema(min_length = 3, max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*[a-z0-9]$")]
    pub alias: Option<String>,
    /// `/mnt/shares/<alias>`: another form of `alias`. Any other folder but a system path: it appears there, too.
    #[schema(max_length = 1024)]
    pub mount_path: Option<String>,
    /// For people.
    #[schema(min_length = 3, max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*[a-z0-9]$")]
    pub label: Option<String>,
    /// For people.
    #[schema(max_length = 1000)]
    pub description: Option<String>,
    /// False: not mounted until it is enabled.
    pub enabled: Option<bool>,
    /// When it ends: seconds, or milliseconds, since 1970; 0: never.
    #[schema(minimum = 0)]
    pub expires_at: Option<f64>,
}

/// A change of a share; what is absent stays, `null` removes.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = ShareUpdateInput)]
pub struct UpdateInput {
    /// Its name below `/mnt/shares`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub alias: Option<Option<String>>,
    /// `/mnt/shares/<alias>`: another form of `alias`. Any other folder but a system path: it appears there, too; `null`:
    /// it appears below `/mnt/shares` alone.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 1024)]
    pub mount_path: Option<Option<String>>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub label: Option<Option<String>>,
    /// For people.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Whether it is mounted.
    pub enabled: Option<bool>,
    /// `readonly` (`ro`) or `readwrite` (`rw`).
    pub mode: Option<String>,
    /// When it ends: seconds, or milliseconds, since 1970; 0 and `null`: never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<f64>)]
    pub expires_at: Option<Option<f64>>,
}

/// Whether a container takes a share.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[schema(as = ShareMountInput)]
pub struct ChoiceInput {
    /// It is mounted.
    pub mount: Option<bool>,
    /// Another name of `mount`.
    pub enabled: Option<bool>,
    /// Another name of `mount`.
    pub mount_enabled: Option<bool>,
}

/// Tells `null` from an absent field.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A creation whose every field is valid.
pub(super) struct NewShare {
    pub(super) path: String,
    pub(super) readonly: bool,
    pub(super) target: Target,
    pub(super) alias: Option<String>,
    pub(super) place: Option<String>,
    pub(super) label: Option<String>,
    pub(super) description: Option<String>,
    pub(super) enabled: bool,
    pub(super) expires: Option<Expiry>,
}

/// A change whose every field is valid.
pub(super) struct Change {
    pub(super) readonly: Option<bool>,
    pub(super) alias: Option<Option<String>>,
    pub(super) place: Option<Option<String>>,
    pub(super) label: Option<Option<String>>,
    pub(super) description: Option<Option<String>>,
    pub(super) enabled: Option<bool>,
    pub(super) expires: Option<Option<Expiry>>,
}

/// When a share ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) at_ms: i64,
    /// The client counts in milliseconds.
    pub(super) in_ms: bool,
}

/// Problems, by field.
#[derive(Default)]
struct Problems(BTreeMap<String, String>);

impl Problems {
    /// The value, or its problem noted.
    fn take<T>(&mut self, field: &str, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|problem| self.0.insert(field.to_owned(), problem)).ok()
    }

    fn finish(self) -> Result<(), ServiceError> {
        if self.0.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(self.0)) }
    }
}

impl CreateInput {
    pub(super) fn check(self) -> Result<NewShare, ServiceError> {
        let mut problems = Problems::default();
        if self.source_path.is_some() && self.path.is_some() && self.source_path != self.path {
            problems.take::<()>("path", Err("is another name of \"source_path\": give one of them".to_owned()));
        }
        let field = if self.source_path.is_none() && self.path.is_some() { "path" } else { "source_path" };
        let path = self.source_path.or(self.path).ok_or_else(|| "is required".to_owned());
        let path = path.and_then(|path| normal_path(&path).map_err(str::to_owned));
        let path = problems.take(field, path);
        let mode = self.mode.ok_or_else(|| "is required: readonly or readwrite".to_owned());
        let readonly = problems.take("mode", mode.and_then(|mode| is_readonly(&mode)));
        let target = target(&mut problems, self.target_container_id.as_deref(), self.target_project_id.as_deref());
        let alias = problems.take("alias", self.alias.map(|alias| word(alias, true)).transpose()).flatten();
        let (alias, place) = match mount_path(&mut problems, alias.as_deref(), self.mount_path.as_deref()) {
            Some(MountPath::Alias(name)) => (Some(name), None),
            Some(MountPath::Place(place)) => (alias, Some(place)),
            None => (alias, None),
        };
        let label = problems.take("label", self.label.map(|label| word(label, false)).transpose()).flatten();
        let description = problems.take("description", self.description.map(self::description).transpose()).flatten();
        let expires = problems.take("expires_at", self.expires_at.map(expiry).transpose()).flatten().flatten();
        problems.finish()?;
        match (path, readonly, target) {
            (Some(path), Some(readonly), Some(target)) => Ok(NewShare {
                path,
                readonly,
                target,
                alias,
                place,
                label,
                description,
                enabled: self.enabled.unwrap_or(true),
                expires,
            }),
            // Each of them has left a problem.
            _ => Err(ServiceError::Invalid(BTreeMap::new())),
        }
    }
}

impl UpdateInput {
    pub(super) fn check(self) -> Result<Change, ServiceError> {
        let mut problems = Problems::default();
        let readonly = problems.take("mode", self.mode.map(|mode| is_readonly(&mode)).transpose()).flatten();
        let optional_word = |value: Option<Option<String>>, is_alias| {
            value.map(|value| value.map(|value| word(value, is_alias)).transpose()).transpose()
        };
        let alias = problems.take("alias", optional_word(self.alias, true)).flatten();
        let path = self.mount_path.as_ref().map(Option::as_deref);
        let at = mount_path(&mut problems, alias.as_ref().and_then(Option::as_deref), path.flatten());
        let (alias, place) = match at {
            Some(MountPath::Alias(name)) => (Some(Some(name)), Some(None)),
            Some(MountPath::Place(place)) => (alias, Some(Some(place))),
            None => (alias, path.map(|_| None)),
        };
        let label = problems.take("label", optional_word(self.label, false)).flatten();
        let text = self.description.map(|value| value.map(description).transpose()).transpose();
        let description = problems.take("description", text).flatten();
        let expires = self.expires_at.map(|value| value.map(expiry).transpose().map(Option::flatten)).transpose();
        let expires = problems.take("expires_at", expires).flatten();
        problems.finish()?;
        Ok(Change { readonly, alias, place, label, description, enabled: self.enabled, expires })
    }
}

impl ChoiceInput {
    pub(super) fn check(self) -> Result<bool, ServiceError> {
        let given = [self.mount, self.enabled, self.mount_enabled].into_iter().flatten().collect::<Vec<_>>();
        match given[..] {
            [] => Err(ServiceError::invalid("mount", "is required: true mounts the share, false refuses it")),
            [first, ref others @ ..] if others.iter().all(|other| *other == first) => Ok(first),
            _ => Err(ServiceError::invalid("mount", "is given several times and differs: give it once")),
        }
    }
}

fn is_readonly(mode: &str) -> Result<bool, String> {
    match mode {
        "readonly" | "ro" => Ok(true),
        "readwrite" | "rw" => Ok(false),
        _ => Err("must be readonly or readwrite".to_owned()),
    }
}

fn target(problems: &mut Problems, container: Option<&str>, project: Option<&str>) -> Option<Target> {
    fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
    let (container, project) = (
        container.map(|text| problems.take("target_container_id", parse(text))),
        project.map(|text| problems.take("target_project_id", parse(text))),
    );
    match (container, project) {
        (Some(id), None) => id.map(Target::Container),
        (None, Some(id)) => id.map(Target::Project),
        (None, None) => {
            let problem = "is required, or target_project_id".to_owned();
            problems.take("target_container_id", Err(problem))
        }
        (Some(_), Some(_)) => {
            let problem = "has no place beside target_container_id: give one of them".to_owned();
            problems.take("target_project_id", Err(problem))
        }
    }
}

/// An alias or a label.
fn word(text: String, is_alias: bool) -> Result<String, String> {
    if !is_name(&text) {
        let form =
            "takes 3 to 63 lowercase letters, digits, hyphens and underscores, the first and last a letter or digit";
        return Err(form.to_owned());
    }
    if is_alias && text.len() == ID_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("has the form of an id: choose another".to_owned());
    }
    Ok(text)
}

/// What `mount_path` says.
enum MountPath {
    /// The name below the one folder that every container has for shares.
    Alias(String),
    /// Another folder.
    Place(String),
}

fn mount_path(problems: &mut Problems, alias: Option<&str>, path: Option<&str>) -> Option<MountPath> {
    let path = path?;
    let said = match path.strip_prefix(MOUNT_POINT).and_then(|rest| rest.strip_prefix('/')) {
        Some(name) => word(name.trim_end_matches('/').to_owned(), true).map(MountPath::Alias),
        None => normal_place(path).map(MountPath::Place).map_err(str::to_owned),
    };
    match problems.take("mount_path", said)? {
        MountPath::Alias(name) if alias.is_some_and(|alias| alias != name) => {
            problems.take("mount_path", Err("names another alias than \"alias\": give one of them".to_owned()))
        }
        said => Some(said),
    }
}

fn description(text: String) -> Result<String, String> {
    // PostgreSQL cannot store NUL.
    if text.chars().count() <= MAX_DESCRIPTION_CHARS && !text.contains('\0') {
        return Ok(text);
    }
    Err(format!("takes at most {MAX_DESCRIPTION_CHARS} characters, none of them NUL"))
}

/// `None`: never.
fn expiry(number: f64) -> Result<Option<Expiry>, String> {
    if number == 0.0 {
        return Ok(None);
    }
    let in_ms = number >= FIRST_MILLISECONDS;
    let at_ms = if in_ms { number } else { number * 1000.0 };
    if !at_ms.is_finite() || at_ms > MAX_MS {
        return Err("must be before the year 10000".to_owned());
    }
    if at_ms <= now_ms() as f64 {
        return Err("must be in the future: seconds, or milliseconds, since 1970".to_owned());
    }
    Ok(Some(Expiry { at_ms: at_ms as i64, in_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ID: &str = "0123456789abcdef01234567";

    fn check(body: Value) -> Result<NewShare, ServiceError> {
        serde_json::from_value::<CreateInput>(body).unwrap().check()
    }

    fn fields(body: Value) -> Vec<String> {
        match check(body) {
            Err(ServiceError::Invalid(problems)) => problems.into_keys().collect(),
            Err(other) => panic!("{other}"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn every_form_means_the_same() {
        for body in [
            json!({"source_path": "/data/shared", "mode": "readwrite", "target_container_id": ID, "alias": "shared"}),
            json!({"path": "/data//shared/", "mode": "rw", "target_container_id": ID, "mount_path": "/mnt/shares/shared"}),
        ] {
            let share = check(body).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((share.path.as_str(), share.readonly, share.enabled), ("/data/shared", false, true));
            assert_eq!(share.alias.as_deref(), Some("shared"));
        }
        let body = json!({"path": "/a", "mode": "ro", "target_project_id": ID, "mount_path": "/mnt//shared/"});
        let share = check(body).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((share.alias, share.place.as_deref()), (None, Some("/mnt/shared")));
    }

    #[test]
    fn a_change_moves_a_share_to_a_place_and_back() {
        let change = |body: Value| {
            let change = serde_json::from_value::<UpdateInput>(body).unwrap().check();
            let change = change.unwrap_or_else(|error| panic!("{error}"));
            (change.alias, change.place)
        };
        let some = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(change(json!({})), (None, None));
        assert_eq!(change(json!({"mount_path": "/data", "alias": null})), (Some(None), some("/data")));
        assert_eq!(change(json!({"mount_path": null})), (None, Some(None)));
        assert_eq!(change(json!({"mount_path": "/mnt/shares/web"})), (some("web"), Some(None)));
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        assert_eq!(fields(json!({})), ["mode", "source_path", "target_container_id"]);
        let all = json!({"source_path": "/proc/1", "mode": "x", "target_container_id": "x", "alias": "A", "label": "-a-",
            "description": "x".repeat(1001), "expires_at": 1});
        let named = ["alias", "description", "expires_at", "label", "mode", "source_path", "target_container_id"];
        assert_eq!(fields(all), named);
        let whole = |more: Value| {
            let mut body = json!({"source_path": "/a", "mode": "ro", "target_container_id": ID});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            fields(body)
        };
        assert_eq!(whole(json!({"path": "/b"})), ["path"]);
        assert_eq!(whole(json!({"target_project_id": ID})), ["target_project_id"]);
        assert_eq!(whole(json!({"alias": ID})), ["alias"]);
        assert_eq!(whole(json!({"alias": "abc", "mount_path": "/mnt/shares/abd"})), ["mount_path"]);
        for path in ["/mnt/shares/../etc", "/mnt/shares", "/proc/x", "/run/x", "/usr/bin", "/a/../b", "data", ""] {
            assert_eq!(whole(json!({"mount_path": path})), ["mount_path"], "{path}");
        }
        assert!(whole(json!({"expires_at": 0, "label": "abc", "enabled": false})).is_empty());
    }

    #[test]
    fn times_are_seconds_or_milliseconds() {
        let later = (now_ms() / 1000 + 100) as f64;
        assert_eq!(expiry(later), Ok(Some(Expiry { at_ms: later as i64 * 1000, in_ms: false })));
        assert_eq!(expiry(later * 1000.0), Ok(Some(Expiry { at_ms: later as i64 * 1000, in_ms: true })));
        for bad in [1.0, -5.0, 1e300, f64::INFINITY] {
            assert!(expiry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_choice_has_three_names() {
        for body in
            [json!({"mount": false}), json!({"enabled": false}), json!({"mount_enabled": false, "mount": false})]
        {
            assert!(!serde_json::from_value::<ChoiceInput>(body).unwrap().check().unwrap());
        }
        for body in [json!({}), json!({"mount": true, "enabled": false})] {
            assert!(serde_json::from_value::<ChoiceInput>(body).unwrap().check().is_err());
        }
    }
}
