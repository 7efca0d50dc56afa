//! Operations of the wire contract that are not built yet: each answers 501 with a sentence, so that a
//! client can tell them from a mistyped path. `not_built.txt` lists them, one `operationId METHOD path` a
//! line; building an operation means removing its line, which the contract test demands.

use super::envelope::failure;
use axum::{
    Router,
    http::Method,
    response::Response,
    routing::{MethodFilter, on},
};
use http::StatusCode;
use std::collections::BTreeMap;

const LIST: &str = include_str!("not_built.txt");

/// What is not built: operation id, method, path.
pub(super) fn operations() -> impl Iterator<Item = (&'static str, Method, &'static str)> {
    LIST.lines().map(|line| {
        let mut words = line.split(' ');
        let mut word = || words.next().expect("the list is part of the program");
        let (id, method, path) = (word(), word(), word());
        (id, method.parse().expect("the list names methods"), path)
    })
}

/// Routes for all of them.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    operations().fold(Router::new(), |router, (id, method, path)| {
        let filter = MethodFilter::try_from(method).expect("the list names methods");
        router.route(path, on(filter, move || std::future::ready(not_built(id))))
    })
}

fn not_built(operation: &'static str) -> Response {
    let message = format!("{operation} is not available in this version: see /docs for what is");
    failure(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message, BTreeMap::new())
}
