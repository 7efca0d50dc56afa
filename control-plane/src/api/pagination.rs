//! Pages of lists: `page` from 1, `limit` 20 by default and 100 at most, `sort_by` and `sort_order`.
//! Whatever is not valid is refused, never ignored.

pub use crate::page::{Order, Page};

use super::query;
use crate::{error::ServiceError, page::DEFAULT_LIMIT};
use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Items of the largest page.
pub const MAX_LIMIT: u64 = 100;
/// The last page that can be asked for; keeps offsets within the database's integers.
const MAX_PAGE: u64 = 1 << 32;

impl Page {
    /// The page's place in a list of `total` items.
    pub fn of(self, total: u64) -> Pagination {
        Pagination { total, page: self.page, limit: self.limit, total_pages: total.div_ceil(self.limit) }
    }
}

fn number(
    parameters: &BTreeMap<String, String>,
    name: &str,
    default: u64,
    max: u64,
    problems: &mut BTreeMap<String, String>,
) -> u64 {
    let Some(text) = parameters.get(name) else { return default };
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => number,
        _ => {
            problems.insert(name.to_owned(), format!("must be a whole number from 1 to {max}"));
            default
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Page {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ServiceError> {
        let parameters = query::parameters(parts);
        let mut problems = BTreeMap::new();
        let page = number(&parameters, "page", 1, MAX_PAGE, &mut problems);
        let limit = number(&parameters, "limit", DEFAULT_LIMIT, MAX_LIMIT, &mut problems);
        if problems.is_empty() { Ok(Self { page, limit }) } else { Err(ServiceError::Invalid(problems)) }
    }
}

/// `sort_by` and `sort_order` as sent; [`Sort::among`] checks them.
#[derive(Debug, Clone, Default)]
pub struct Sort {
    by: Option<String>,
    order: Option<String>,
}

impl Sort {
    /// The order asked for, out of the `allowed` fields; `default` where the request does not say.
    pub fn among(&self, allowed: &[&'static str], default: Order) -> Result<Order, ServiceError> {
        let mut problems = BTreeMap::new();
        let mut order = default;
        if let Some(by) = &self.by {
            match allowed.iter().find(|name| *name == by) {
                Some(name) => order.by = name,
                None => {
                    problems.insert("sort_by".to_owned(), format!("must be one of {}", allowed.join(", ")));
                }
            }
        }
        match self.order.as_deref() {
            None => {}
            Some("asc") => order.descending = false,
            Some("desc") => order.descending = true,
            Some(_) => {
                problems.insert("sort_order".to_owned(), "must be asc or desc".to_owned());
            }
        }
        if problems.is_empty() { Ok(order) } else { Err(ServiceError::Invalid(problems)) }
    }
}

impl<S: Sync> FromRequestParts<S> for Sort {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ServiceError> {
        let mut parameters = query::parameters(parts);
        Ok(Self { by: parameters.remove("sort_by"), order: parameters.remove("sort_order") })
    }
}

/// Page, order and filter of a list, or every bad field of all three.
pub fn together<P, O, F>(
    page: Result<P, ServiceError>,
    order: Result<O, ServiceError>,
    filter: Result<F, ServiceError>,
) -> Result<(P, O, F), ServiceError> {
    let errors = match (page, order, filter) {
        (Ok(page), Ok(order), Ok(filter)) => return Ok((page, order, filter)),
        (page, order, filter) => [page.err(), order.err(), filter.err()],
    };
    let mut problems = BTreeMap::new();
    for error in errors.into_iter().flatten() {
        match error {
            ServiceError::Invalid(found) => problems.extend(found),
            other => return Err(other),
        }
    }
    Err(ServiceError::Invalid(problems))
}

/// A page's place in its list, as it stands beside the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pagination {
    /// Items of the whole list.
    pub total: u64,
    /// The page, counted from 1.
    pub page: u64,
    /// Items of a page.
    pub limit: u64,
    /// Pages of the whole list.
    #[serde(rename = "totalPages")]
    pub total_pages: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn page(query: &str) -> Result<Page, ServiceError> {
        let (mut parts, ()) = http::Request::get(format!("/x?{query}")).body(()).unwrap().into_parts();
        Page::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn absent_values_have_defaults_and_bad_ones_are_named() {
        assert_eq!(page("").await.unwrap(), Page { page: 1, limit: 20 });
        assert_eq!(page("page=3&limit=100").await.unwrap().offset(), 200);
        for (query, field) in
            [("page=0", "page"), ("limit=101", "limit"), ("limit=x", "limit"), ("page=-1", "page"), ("page=", "page")]
        {
            match page(query).await {
                Err(ServiceError::Invalid(details)) => assert!(details.contains_key(field), "{query}"),
                other => panic!("{query}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_order_is_refused() {
        let default = Order { by: "created_at", descending: true };
        let sort = |by: Option<&str>, order: Option<&str>| {
            Sort { by: by.map(str::to_owned), order: order.map(str::to_owned) }.among(&["id", "created_at"], default)
        };
        assert_eq!(sort(None, None).unwrap(), default);
        assert_eq!(sort(Some("id"), Some("asc")).unwrap(), Order { by: "id", descending: false });
        assert!(sort(Some("password_hash"), None).is_err());
        assert!(sort(None, Some("ASC; DROP")).is_err());
    }

    #[test]
    fn a_page_knows_how_many_there_are() {
        assert_eq!(Page { page: 1, limit: 20 }.of(41).total_pages, 3);
        assert_eq!(Page { page: 1, limit: 20 }.of(0).total_pages, 0);
    }
}
