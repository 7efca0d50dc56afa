//! What a command's parameters may be: a subset of JSON Schema (draft 2020-12) that describes one flat object.
//! A keyword outside of the subset is refused, so that nothing is believed to be checked that is not.
//!
//! | of | keywords |
//! | --- | --- |
//! | the object | `type: "object"`, `properties`, `required`, `additionalProperties: false`, `$schema`, `title`, `description` |
//! | every property | `type`, `title`, `description`, `default` |
//! | `"string"` | `enum` or `pattern` (one of them), `minLength`, `maxLength` |
//! | `"integer"` | `minimum`, `maximum` |
//! | `"boolean"` | |
//!
//! Beyond JSON Schema, and without exception: patterns match the whole value; no value begins with `-`, so that
//! none can be taken for an option; none holds control characters.

use super::{MAX_PARAMETERS, Parameters};
use crate::bounded::Text;
use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::{collections::BTreeMap, fmt};

/// Bytes of the longest text that can be a parameter.
pub const MAX_TEXT_BYTES: usize = 512;
/// Bytes of the longest pattern.
const MAX_PATTERN_BYTES: usize = 512;
/// Bytes that a compiled pattern may take.
const MAX_PATTERN_SIZE: usize = 256 << 10;
/// Choices of one parameter.
const MAX_CHOICES: usize = 64;

/// A parameter's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A text.
    Text(Text<MAX_TEXT_BYTES>),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Flag(bool),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// Where something is wrong → what.
pub type Problems = BTreeMap<String, String>;

/// What a command's parameters may be.
#[derive(Debug, Clone, Default)]
pub struct Schema(BTreeMap<String, Field>);

#[derive(Debug, Clone)]
struct Field {
    kind: Kind,
    required: bool,
    default: Option<Value>,
}

#[derive(Debug, Clone)]
enum Kind {
    Choice(Vec<String>),
    Text { pattern: Regex, min: usize, max: usize },
    Integer { min: i64, max: i64 },
    Flag,
}

impl Schema {
    /// Reads a schema; every problem with the path of its place.
    pub fn parse(json: &Json) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let fields = parse_object(json, &mut problems);
        if problems.is_empty() { Ok(Self(fields)) } else { Err(problems) }
    }

    /// True where there is a parameter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// True where the parameter always has a value.
    pub fn always_has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|field| field.required || field.default.is_some())
    }

    /// The values that a client sent, with defaults where there are any; or what is wrong with which parameter.
    pub fn read(&self, json: &Map<String, Json>) -> Result<Parameters, Problems> {
        let mut problems = Problems::new();
        let mut values = BTreeMap::new();
        for (name, value) in json.iter().filter(|(name, _)| self.has(name)) {
            match value_of(value) {
                Ok(value) => drop(values.insert(name.clone(), value)),
                Err(problem) => drop(problems.insert(name.clone(), problem)),
            }
        }
        for name in json.keys().filter(|name| !self.has(name)) {
            problems.insert(name.chars().take(64).collect(), "is not a parameter of this command".to_owned());
        }
        for (name, field) in &self.0 {
            if let (Some(default), false) = (&field.default, json.contains_key(name)) {
                values.insert(name.clone(), default.clone());
            }
        }
        self.check(&values, &mut problems);
        let bounded = values.into_iter().filter_map(|(name, value)| Some((Text::try_from(name).ok()?, value)));
        let bounded: BTreeMap<Text<64>, Value> = bounded.collect();
        match Parameters::try_from(bounded) {
            Ok(parameters) if problems.is_empty() => Ok(parameters),
            _ => Err(problems),
        }
    }

    /// Checks values that were read elsewhere: what came over the link, for example.
    pub fn validate(&self, parameters: &Parameters) -> Result<(), Problems> {
        let mut problems = Problems::new();
        let values = parameters.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        self.check(&values, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn check(&self, values: &BTreeMap<String, Value>, problems: &mut Problems) {
        for (name, value) in values {
            let problem = match self.0.get(name) {
                None => Some("is not a parameter of this command".to_owned()),
                Some(field) => field.kind.problem_with(value),
            };
            if let Some(problem) = problem {
                problems.entry(name.clone()).or_insert(problem);
            }
        }
        for (name, _) in self.0.iter().filter(|(name, field)| field.required && !values.contains_key(*name)) {
            problems.entry(name.clone()).or_insert_with(|| "is required".to_owned());
        }
    }
}

impl Kind {
    fn problem_with(&self, value: &Value) -> Option<String> {
        if value.to_string().starts_with('-') {
            return Some("must not begin with -".to_owned());
        }
        match (self, value) {
            (Self::Choice(choices), Value::Text(text)) if choices.iter().any(|choice| **choice == **text) => None,
            (Self::Choice(choices), _) => Some(format!("must be one of {}", choices.join(", "))),
            (Self::Text { .. }, Value::Text(text)) if text.chars().any(char::is_control) => {
                Some("must not hold control characters".to_owned())
            }
            (Self::Text { pattern, min, max }, Value::Text(text)) => {
                let length = text.chars().count();
                if length < *min || length > *max {
                    Some(format!("must have {min} to {max} characters"))
                } else if !pattern.is_match(text) {
                    Some("does not have the form that the command's schema asks for".to_owned())
                } else {
                    None
                }
            }
            (Self::Integer { min, max }, Value::Integer(number)) if (min..=max).contains(&number) => None,
            (Self::Integer { min, max }, _) => Some(format!("must be a whole number from {min} to {max}")),
            (Self::Flag, Value::Flag(_)) => None,
            (Self::Text { .. }, _) => Some("must be a text".to_owned()),
            (Self::Flag, _) => Some("must be true or false".to_owned()),
        }
    }
}

fn value_of(json: &Json) -> Result<Value, String> {
    match json {
        Json::String(text) => Text::try_from(text.as_str())
            .map(Value::Text)
            .map_err(|_| format!("must have at most {MAX_TEXT_BYTES} bytes")),
        Json::Number(number) => number.as_i64().map(Value::Integer).ok_or_else(|| "must be a whole number".to_owned()),
        Json::Bool(flag) => Ok(Value::Flag(*flag)),
        _ => Err("must be a text, a whole number, true or false".to_owned()),
    }
}

fn parse_object(json: &Json, problems: &mut Problems) -> BTreeMap<String, Field> {
    let mut fields = BTreeMap::new();
    let Some(object) = json.as_object() else {
        problems.insert(String::new(), "must be an object".to_owned());
        return fields;
    };
    for (keyword, value) in object {
        let known = match keyword.as_str() {
            "type" => value == "object",
            "properties" => value.as_object().is_some_and(|all| all.len() <= MAX_PARAMETERS),
            "required" => value.as_array().is_some_and(|all| all.iter().all(Json::is_string)),
            "additionalProperties" => value == false,
            "$schema" | "title" | "description" => value.is_string(),
            _ => false,
        };
        if !known {
            problems
                .insert(keyword.clone(), "is not a keyword, or not a value of it, that is supported here".to_owned());
        }
    }
    if !object.contains_key("type") {
        problems.insert("type".to_owned(), "must be object".to_owned());
    }
    let none = Map::new();
    let properties = object.get("properties").and_then(Json::as_object).unwrap_or(&none);
    let required: Vec<&str> =
        object.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    for name in required.iter().filter(|name| !properties.contains_key(**name)) {
        problems.insert("required".to_owned(), format!("names {name}, which is not a property"));
    }
    for (name, property) in properties {
        let place = format!("properties.{name}");
        if !is_name(name) {
            problems.insert(place, "must be a name of 1 to 64 letters, digits and _".to_owned());
            continue;
        }
        match parse_field(property, required.contains(&name.as_str())) {
            Ok(field) => drop(fields.insert(name.clone(), field)),
            Err(problem) => drop(problems.insert(place, problem)),
        }
    }
    fields
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn parse_field(json: &Json, required: bool) -> Result<Field, String> {
    let object = json.as_object().ok_or("must be an object")?;
    let word = object.get("type").and_then(Json::as_str).unwrap_or_default();
    let own: &[&str] = match word {
        "string" => &["enum", "pattern", "minLength", "maxLength"],
        "integer" => &["minimum", "maximum"],
        "boolean" => &[],
        _ => return Err("type must be string, integer or boolean".to_owned()),
    };
    let general = ["type", "title", "description", "default"];
    if let Some(unknown) = object.keys().find(|key| !own.contains(&key.as_str()) && !general.contains(&key.as_str())) {
        return Err(format!("has {unknown}, which is not supported here"));
    }
    let number = |key: &str, absent: i64| match object.get(key) {
        None => Ok(absent),
        Some(value) => value.as_i64().ok_or_else(|| format!("{key} must be a whole number")),
    };
    let kind = match word {
        "boolean" => Kind::Flag,
        "integer" => Kind::Integer { min: number("minimum", 0)?, max: number("maximum", i64::MAX)? },
        _ => match (object.get("enum"), object.get("pattern")) {
            (Some(choices), None) => Kind::Choice(parse_choices(choices)?),
            (None, Some(pattern)) => Kind::Text {
                pattern: parse_pattern(pattern)?,
                min: usize::try_from(number("minLength", 1)?).map_err(|_| "minLength must not be negative")?,
                max: usize::try_from(number("maxLength", MAX_TEXT_BYTES as i64)?)
                    .map_err(|_| "maxLength must not be negative")?,
            },
            _ => return Err("a string has either enum or pattern".to_owned()),
        },
    };
    let default = object.get("default").map(value_of).transpose()?;
    if let Some(problem) = default.as_ref().and_then(|default| kind.problem_with(default)) {
        return Err(format!("default {problem}"));
    }
    Ok(Field { kind, required, default })
}

fn parse_choices(json: &Json) -> Result<Vec<String>, String> {
    let fits = |text: &&str| {
        !text.is_empty()
            && text.len() <= MAX_TEXT_BYTES
            && !text.starts_with('-')
            && !text.chars().any(char::is_control)
    };
    let all =
        json.as_array().filter(|all| (1..=MAX_CHOICES).contains(&all.len())).ok_or("enum must list 1 to 64 texts")?;
    all.iter()
        .map(|choice| choice.as_str().filter(fits).map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or_else(|| "enum lists texts that do not begin with -".to_owned())
}

/// A pattern that matches whole values only, whatever is written in it: a group that it closes by itself does
/// not compile alone.
fn parse_pattern(json: &Json) -> Result<Regex, String> {
    let pattern = json.as_str().filter(|text| text.len() <= MAX_PATTERN_BYTES).ok_or("pattern must be a text")?;
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_PATTERN_SIZE).build();
    compile(pattern)
        .and_then(|_| compile(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| format!("pattern cannot be used: {error}"))
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
