use super::*;
use serde_json::json;

fn schema() -> Schema {
    Schema::parse(&json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "pattern": "[a-z][a-z.-]*|x", "maxLength": 8},
            "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
            "count": {"type": "integer", "minimum": -5, "maximum": 9},
            "deep": {"type": "boolean"},
        },
        "required": ["name"],
    }))
    .unwrap()
}

fn read(value: Json) -> Result<Vec<(String, String)>, Vec<String>> {
    match schema().read(value.as_object().unwrap()) {
        Ok(values) => Ok(values.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()),
        Err(problems) => Err(problems.into_keys().collect()),
    }
}

#[test]
fn values_are_read_with_their_defaults() {
    let read = read(json!({"name": "a.b", "count": 3, "deep": false})).unwrap();
    let expected = [("count", "3"), ("deep", "false"), ("mode", "fast"), ("name", "a.b")];
    assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn every_bad_parameter_is_named() {
    let bad = json!({"mode": "Fast", "count": 10, "deep": "yes", "other": 1});
    assert_eq!(read(bad).unwrap_err(), ["count", "deep", "mode", "name", "other"]);
}

#[test]
fn hostile_values_are_refused() {
    let long = "a".repeat(9);
    for name in [
        "--help", "-rf", "", "A", "a b", "a\nb", "a\0", "a;b", "$(id)", "`id`", "../..", "xa1", "1x", "ä", "{count}",
        &long,
    ] {
        assert_eq!(read(json!({ "name": name })).unwrap_err(), ["name"], "{name:?}");
    }
    for name in [json!(null), json!(1), json!(["a"]), json!({"a": 1}), json!("a".repeat(600))] {
        assert_eq!(read(json!({ "name": name })).unwrap_err(), ["name"], "{name}");
    }
    for count in [json!(-1), json!(1.5), json!("1"), json!(1e30), json!(u64::MAX)] {
        assert_eq!(read(json!({"name": "a", "count": count})).unwrap_err(), ["count"], "{count}");
    }
}

#[test]
fn a_pattern_holds_for_the_whole_value() {
    // Anchoring by hand would only bind the first and last alternative.
    assert!(read(json!({"name": "x"})).is_ok());
    for pattern in ["a)|(.*", "a)(", "(", "a{99999999}", "(?-u"] {
        let schema = json!({"type": "object", "properties": {"name": {"type": "string", "pattern": pattern}}});
        assert!(Schema::parse(&schema).is_err(), "{pattern}");
    }
    let multi_line = json!({"type": "object", "properties": {"name": {"type": "string", "pattern": "(?m)^a$"}}});
    let schema = Schema::parse(&multi_line).unwrap();
    assert!(schema.read(json!({"name": "a\nb"}).as_object().unwrap()).is_err());
}

#[test]
fn what_holds_without_exception_holds_where_a_pattern_allows_everything() {
    let anything = json!({"type": "object", "properties": {"name": {"type": "string", "pattern": "(?s).*"}}});
    let schema = Schema::parse(&anything).unwrap();
    let fits = |name: &str| schema.read(json!({ "name": name }).as_object().unwrap()).is_ok();
    assert!(fits("a b;$(id)"));
    for name in ["-", "--help", "a\nb", "a\rb", "\0", "a\u{1b}[0m", "\u{7f}", "\u{85}", ""] {
        assert!(!fits(name), "{name:?}");
    }
}

#[test]
fn what_came_over_the_link_is_checked_again() {
    let schema = schema();
    let values = |name: &str| {
        let value = Value::Text(Text::truncated(name));
        Parameters::try_from(BTreeMap::from([(Text::truncated("name"), value)])).unwrap()
    };
    assert!(schema.validate(&values("abc")).is_ok());
    for name in ["-abc", "ABC", "a\nb"] {
        assert!(schema.validate(&values(name)).is_err(), "{name}");
    }
    assert!(schema.validate(&Parameters::default()).is_err(), "a required parameter is missing");
    let name = (Text::truncated("name"), Value::Text(Text::truncated("abc")));
    let more = Parameters::try_from(BTreeMap::from([name, (Text::truncated("other"), Value::Flag(true))])).unwrap();
    assert!(schema.validate(&more).is_err(), "one that the command does not have");
}

#[test]
fn keywords_outside_of_the_subset_are_refused() {
    let with = |property: Json| json!({"type": "object", "properties": {"a": property}});
    for schema in [
        json!([]),
        json!({}),
        json!({"type": "array"}),
        json!({"type": "object", "additionalProperties": true}),
        json!({"type": "object", "oneOf": []}),
        json!({"type": "object", "required": ["a"]}),
        with(json!({"type": "string"})),
        with(json!({"type": "string", "pattern": "a", "enum": ["a"]})),
        with(json!({"type": "string", "pattern": "a", "format": "uri"})),
        with(json!({"type": "string", "enum": []})),
        with(json!({"type": "string", "enum": ["-a"]})),
        with(json!({"type": "string", "enum": ["a\nb"]})),
        with(json!({"type": "string", "enum": [""]})),
        with(json!({"type": "number"})),
        with(json!({"type": "integer", "minimum": 1.5})),
        with(json!({"type": "integer", "maximum": 3, "default": 4})),
        with(json!({"type": "boolean", "pattern": "a"})),
        json!({"type": "object", "properties": {"a b": {"type": "boolean"}}}),
    ] {
        assert!(Schema::parse(&schema).is_err(), "{schema}");
    }
}
