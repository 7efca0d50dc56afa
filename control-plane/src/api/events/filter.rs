//! Which events are asked for: the same words in a query, in the body of a bulk deletion and in the
//! handshake of a live connection. What is not valid is refused, never ignored.

use crate::{
    api::time,
    error::ServiceError,
    store::event::{Filter, Slice},
};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Display, str::FromStr};
use utoipa::{IntoParams, ToSchema};

/// Events of a part where the request does not say.
const DEFAULT_LIMIT: u64 = 50;
/// Events of the largest part.
const MAX_LIMIT: u64 = 500;
/// The furthest part; keeps offsets within the database's integers.
const MAX_OFFSET: u64 = 1 << 40;

/// The parameters of a list, for the document.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; the values are read by name")]
pub(super) struct ListQuery {
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u64>,
    offset: Option<u64>,
    /// `created_at` or `event_type`.
    sort_by: Option<String>,
    /// `asc` or `desc`.
    sort_order: Option<String>,
    event_type: Option<String>,
    resource_type: Option<String>,
    resource_id: Option<String>,
    project_id: Option<String>,
    container_id: Option<String>,
    /// RFC 3339, or a day.
    start_date: Option<String>,
    /// RFC 3339, or a day, which is still part of it.
    end_date: Option<String>,
    realm_id: Option<String>,
}

/// What is to be deleted.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct BulkDeleteInput {
    /// RFC 3339, or a day: what is older.
    #[serde(alias = "before")]
    before_date: Option<String>,
    event_type: Option<String>,
    resource_type: Option<String>,
    resource_id: Option<String>,
    realm_id: Option<String>,
}

/// Parameters by name, and what was wrong with those that were read.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    values: BTreeMap<String, String>,
    problems: BTreeMap<String, String>,
}

impl Parameters {
    pub(super) fn of_query(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned();
        Self::from(pairs.collect::<BTreeMap<_, _>>())
    }

    /// With the place to resume at that a header names; it wins.
    pub(super) fn resuming_at(mut self, header: Option<&str>) -> Self {
        if let Some(text) = header.filter(|text| !text.is_empty()) {
            self.values.insert("last_event_id".to_owned(), text.to_owned());
        }
        self
    }

    /// 400 with everything that was wrong.
    pub(super) fn check(self) -> Result<(), ServiceError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(self.problems)) }
    }

    fn read<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.values.get(name)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problems.insert(name.to_owned(), problem);
                None
            }
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        self.read(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn number(&mut self, name: &str, default: u64, min: u64, max: u64) -> u64 {
        let read = self.read(name, |text| match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        });
        read.unwrap_or(default)
    }

    fn time(&mut self, name: &str, day: time::Day) -> Option<i64> {
        self.read(name, |text| time::parse(text, day).ok_or_else(|| time::PROBLEM.to_owned()))
    }

    /// The filter that they make; whose events it lets through is for the service to say.
    pub(super) fn filter(&mut self) -> Filter {
        let before = self.time("end_date", time::Day::End);
        Filter {
            kind: self.parsed("event_type"),
            resource_kind: self.parsed("resource_type"),
            // Of any kind, but always in the form of an id.
            resource: self.parsed::<hoody_protocol::id::RequestId>("resource_id").map(|id| id.to_string()),
            project: self.parsed("project_id"),
            container: self.parsed("container_id"),
            realm: self.parsed("realm_id"),
            from: self.time("start_date", time::Day::Begin),
            before: self.time("before_date", time::Day::Begin).or(before),
            ..Filter::default()
        }
    }

    /// Which part of the list, in which order.
    pub(super) fn slice(&mut self) -> Slice {
        let by = self.read("sort_by", |text| match text {
            "created_at" => Ok("created_at"),
            "event_type" => Ok("event_type"),
            _ => Err("must be created_at or event_type".to_owned()),
        });
        let descending = self.read("sort_order", |text| match text {
            "asc" => Ok(false),
            "desc" => Ok(true),
            _ => Err("must be asc or desc".to_owned()),
        });
        Slice {
            by: by.unwrap_or("created_at"),
            descending: descending.unwrap_or(true),
            limit: self.number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
            offset: self.number("offset", 0, 0, MAX_OFFSET),
        }
    }

    /// Where a live connection resumes.
    pub(super) fn resume(&mut self) -> Option<i64> {
        self.read("last_event_id", |text| match text.parse::<i64>() {
            Ok(sequence) if sequence >= 0 => Ok(sequence),
            _ => Err("must be the id of an event that was delivered: a whole number".to_owned()),
        })
    }
}

impl From<BTreeMap<String, String>> for Parameters {
    fn from(mut values: BTreeMap<String, String>) -> Self {
        // A form that is filled in with nothing asks for nothing.
        values.retain(|_, value| !value.is_empty());
        Self { values, problems: BTreeMap::new() }
    }
}

impl From<BulkDeleteInput> for Parameters {
    fn from(input: BulkDeleteInput) -> Self {
        let fields = [
            ("before_date", input.before_date),
            ("event_type", input.event_type),
            ("resource_type", input.resource_type),
            ("resource_id", input.resource_id),
            ("realm_id", input.realm_id),
        ];
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        // An empty text is no filter by mistake here: what is deleted does not come back.
        Self { values: given.collect(), problems: BTreeMap::new() }
    }
}
