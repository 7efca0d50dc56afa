//! Which part of a list is asked for, and in which order. Requests are parsed into these by the API
//! ([`crate::api::pagination`]).

use utoipa::IntoParams;

/// Items of a page where the request does not say.
pub const DEFAULT_LIMIT: u64 = 20;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// The page, counted from 1.
    #[param(minimum = 1, required = false)]
    pub page: u64,
    /// Items of a page.
    #[param(minimum = 1, maximum = 100, required = false)]
    pub limit: u64,
}

impl Page {
    /// Items before the page.
    pub fn offset(self) -> u64 {
        (self.page - 1) * self.limit
    }
}

impl Default for Page {
    fn default() -> Self {
        Self { page: 1, limit: DEFAULT_LIMIT }
    }
}

/// A checked order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The field. It may become part of a query's text: only ever a constant.
    pub by: &'static str,
    /// Largest first.
    pub descending: bool,
}

impl Order {
    /// `ASC` or `DESC`.
    pub fn direction(self) -> &'static str {
        if self.descending { "DESC" } else { "ASC" }
    }
}
