//! Query parameters: what does not parse is 400 and names each of them.

use crate::error::ServiceError;
use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use std::{borrow::Cow, collections::BTreeMap};

/// The query as a `T`. Numbers and flags are parsed from their text; unknown parameters are ignored.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ServiceError> {
        let mut query = Cow::Borrowed(parts.uri.query().unwrap_or_default());
        let mut problems = BTreeMap::new();
        // A parser stops at the first bad parameter: it goes on without that one, to find the next.
        loop {
            let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
            let error = match serde_path_to_error::deserialize(pairs) {
                Ok(parsed) if problems.is_empty() => return Ok(Self(parsed)),
                Ok(_) => return Err(ServiceError::Invalid(problems)),
                Err(error) => error,
            };
            let field = error.path().to_string();
            let Some(rest) = without(&query, &field) else {
                // About no parameter that is there: one that is missing, perhaps only since it was left out.
                let field = if field == "." { "query".to_owned() } else { field };
                problems.entry(field).or_insert_with(|| error.inner().to_string());
                return Err(ServiceError::Invalid(problems));
            };
            problems.insert(field, error.inner().to_string());
            query = Cow::Owned(rest);
        }
    }
}

/// The query without the parameters of this name; `None` where it has none.
fn without(query: &str, name: &str) -> Option<String> {
    let pairs = || form_urlencoded::parse(query.as_bytes());
    let rest =
        || form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs().filter(|(n, _)| n != name)).finish();
    pairs().any(|(found, _)| found == name).then(rest)
}

/// Every parameter of the query; the last one wins where a name is repeated.
pub fn parameters(parts: &Parts) -> BTreeMap<String, String> {
    form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// For flags (`serde(default, deserialize_with = "crate::api::query::flag")`): true and 1, false and 0.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(D::Error::custom("must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Filter {
        #[serde(default, deserialize_with = "flag")]
        all: bool,
        at_least: Option<u32>,
    }

    async fn parse(query: &str) -> Result<Filter, ServiceError> {
        let (mut parts, ()) = http::Request::get(format!("/x?{query}")).body(()).unwrap().into_parts();
        Query::from_request_parts(&mut parts, &()).await.map(|Query(filter)| filter)
    }

    #[tokio::test]
    async fn a_value_of_the_wrong_type_names_its_parameter() {
        let filter = parse("all=1&at_least=4&other=x").await.unwrap();
        assert!(filter.all && filter.at_least == Some(4));
        for (query, field) in [("all=maybe", "all"), ("at_least=-3", "at_least")] {
            match parse(query).await {
                Err(ServiceError::Invalid(details)) => assert_eq!(details.keys().next().unwrap(), field),
                other => panic!("{other:?}"),
            }
        }
        let Err(ServiceError::Invalid(details)) = parse("all=maybe&other=x&at_least=-3").await else { panic!() };
        assert_eq!(details.into_keys().collect::<Vec<_>>(), ["all", "at_least"]);
    }
}
