//! Identifiers in paths: one of the wrong form is 400 and names the parameter.

use crate::error::ServiceError;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use std::{collections::BTreeMap, fmt::Display, str::FromStr};

/// The only (or the last) identifier in the path.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

/// Two identifiers in the path, in its order.
#[derive(Debug, Clone, Copy)]
pub struct Ids<A, B>(pub A, pub B);

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, ServiceError> {
    text.parse().map_err(|error: T::Err| ServiceError::invalid(name, error.to_string()))
}

async fn parameters<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Vec<(String, String)>, ServiceError> {
    let parameters = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| ServiceError::Invalid(BTreeMap::from([("path".to_owned(), "is not valid UTF-8".to_owned())])))?;
    Ok(parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

impl<S: Send + Sync, T: FromStr<Err: Display> + Send> FromRequestParts<S> for Id<T> {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        match parameters(parts, state).await?.last() {
            Some((name, value)) => parse(name, value).map(Self),
            None => Err(ServiceError::NotFound("path")),
        }
    }
}

impl<S, A, B> FromRequestParts<S> for Ids<A, B>
where
    S: Send + Sync,
    A: FromStr<Err: Display> + Send,
    B: FromStr<Err: Display> + Send,
{
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceError> {
        match parameters(parts, state).await?.as_slice() {
            [.., (first, a), (second, b)] => Ok(Self(parse(first, a)?, parse(second, b)?)),
            _ => Err(ServiceError::NotFound("path")),
        }
    }
}
