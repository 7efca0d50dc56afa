//! Routes, request and response types; nothing else.
//!
//! Each resource has a module with `router()`; [`resources`] lists them. [`router`] puts the layers that
//! every request passes around them.

pub mod activity;
pub mod admin;
pub mod auth;
pub mod auth_tokens;
mod basic;
pub mod caller;
pub mod client;
pub mod commands;
pub mod containers;
mod counted;
mod credential;
mod device_page;
mod docs;
pub mod envelope;
pub mod environment;
pub mod events;
pub mod firewall;
pub mod health;
pub mod images;
pub mod json;
pub mod layer;
pub mod meta;
pub mod network;
mod not_built;
pub mod notifications;
pub mod pagination;
pub mod path;
pub mod pools;
pub mod projects;
pub mod query;
mod realm;
pub mod realms;
pub mod request_id;
pub mod servers;
pub mod shares;
pub mod snapshots;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod time;
pub mod two_factor;
pub mod users;
pub mod vault;
pub mod waitlist;

use crate::app::App;
use axum::{
    Router,
    extract::{OriginalUri, Request},
    middleware::{self, Next},
    response::Response,
};
use http::{Method, StatusCode, Uri, uri::PathAndQuery};
use std::collections::BTreeMap;
use tower::Layer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// Every resource's routes. One line per module.
fn resources() -> OpenApiRouter<App> {
    [
        activity::router(),
        admin::commands::router(),
        admin::images::router(),
        admin::invite_codes::router(),
        admin::notifications::router(),
        admin::operations::router(),
        admin::servers::router(),
        admin::unknown_containers::router(),
        admin::users::router(),
        auth::router(),
        auth_tokens::router(),
        commands::router(),
        containers::router(),
        environment::router(),
        events::router(),
        firewall::router(),
        network::router(),
        snapshots::router(),
        health::router(),
        images::router(),
        meta::router(),
        pools::router(),
        notifications::router(),
        projects::router(),
        realms::router(),
        servers::router(),
        shares::router(),
        two_factor::router(),
        users::router(),
        waitlist::router(),
        vault::router(),
    ]
    .into_iter()
    .fold(OpenApiRouter::new(), OpenApiRouter::merge)
}

/// The probes alone, for an address of their own.
pub fn probes() -> OpenApiRouter<App> {
    health::router()
}

/// The OpenAPI document.
pub fn openapi() -> OpenApi {
    docs::complete(resources().into_openapi())
}

/// Every operation of the document: id, method, path.
fn operations(document: &OpenApi) -> Vec<(&str, Method, &str)> {
    let mut found = Vec::new();
    for (path, item) in &document.paths.paths {
        let of_item = [
            (Method::GET, &item.get),
            (Method::POST, &item.post),
            (Method::PUT, &item.put),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
            (Method::HEAD, &item.head),
            (Method::OPTIONS, &item.options),
            (Method::TRACE, &item.trace),
        ];
        for (method, operation) in of_item {
            if let Some(operation) = operation {
                // Without an id there is no line in the table, and so nobody may.
                found.push((operation.operation_id.as_deref().unwrap_or_default(), method, path.as_str()));
            }
        }
    }
    found
}

/// The whole public API.
pub fn router(app: App) -> Router {
    let (routes, document) = resources().split_for_parts();
    let mut rules = layer::access::Rules::new(operations(&document));
    rules.add(not_built::operations());
    rules.open(events::socket_io::PATH, [Method::GET, Method::POST]);
    let routes = routes
        .merge(docs::router(&docs::complete(document)))
        .merge(device_page::router())
        .merge(events::socket_io::router(&app))
        .merge(not_built::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    let routed = layer::apply(routes, &app, rules).with_state(app);
    // The path must be normalised before routing, hence around the router and not as a layer of it.
    let normalised = middleware::from_fn(trim_trailing_slash).layer(routed);
    Router::new().fallback_service(normalised)
}

async fn not_found(OriginalUri(uri): OriginalUri) -> Response {
    let message = format!("there is nothing at {}: see /docs for what there is", uri.path());
    envelope::failure(StatusCode::NOT_FOUND, "NOT_FOUND", message, BTreeMap::new())
}

async fn method_not_allowed(request: Request) -> Response {
    let message = format!("{} is not possible here: see /docs for what is", request.method());
    envelope::failure(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message, BTreeMap::new())
}

/// Paths answer with and without the trailing slash; routes are written without.
async fn trim_trailing_slash(mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    let is_page = path.strip_prefix(docs::PAGE).is_some_and(|rest| rest.starts_with('/'));
    if trimmed.len() < path.len() && !trimmed.is_empty() && !is_page {
        let target = match request.uri().query() {
            Some(query) => format!("{trimmed}?{query}"),
            None => trimmed.to_owned(),
        };
        let mut parts = request.uri().clone().into_parts();
        if let Ok(target) = target.parse::<PathAndQuery>() {
            parts.path_and_query = Some(target);
        }
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    next.run(request).await
}
