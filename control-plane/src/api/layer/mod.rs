//! What every request passes on its way to a handler, from the outside in: what is left of its body, request id, signature,
//! metrics, CORS, panics, deadline, authentication, activity, rate limit, the table of operations,
//! idempotency.

pub(super) mod access;
mod activity;
mod guard;
pub mod idempotency;
mod limit;
mod measure;
mod recovered;
mod signature;
mod unread;

pub(super) use limit::with_headers as with_rate_limit;

use super::{caller, request_id};
use crate::app::App;
use axum::{Router, extract::DefaultBodyLimit, middleware};
use http::{HeaderName, HeaderValue, Method, header};
use std::{sync::Arc, time::Duration};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};

/// Bytes of a request's body, unless a route allows more.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a browser may remember what CORS allows.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// Puts the layers around routed requests.
pub(super) fn apply(routes: Router<App>, app: &App, rules: access::Rules) -> Router<App> {
    let with_app = || app.clone();
    // One stack, boxed once for each route: a layer of the router's own would clone, box and drop all that is within
    // it, for every request.
    routes.layer(
        ServiceBuilder::new()
            .layer(middleware::from_fn(unread::layer))
            .layer(middleware::from_fn(request_id::layer))
            .layer(middleware::from_fn_with_state(with_app(), signature::layer))
            .layer(middleware::from_fn(measure::layer))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(cors(&app.config.cors_origins))
            .layer(CatchPanicLayer::custom(guard::panicked))
            .layer(middleware::from_fn_with_state(with_app(), guard::deadline))
            .layer(middleware::from_fn_with_state(with_app(), caller::layer))
            .layer(middleware::from_fn_with_state(with_app(), activity::layer))
            .layer(middleware::from_fn_with_state(with_app(), limit::layer))
            .layer(middleware::from_fn_with_state((with_app(), Arc::new(rules)), access::layer))
            .layer(middleware::from_fn_with_state(with_app(), idempotency::layer)),
    )
}

fn cors(origins: &[String]) -> CorsLayer {
    let origin = match origins {
        [any] if any == "*" => AllowOrigin::any(),
        listed => AllowOrigin::list(listed.iter().filter_map(|origin| HeaderValue::try_from(origin).ok())),
    };
    let from_client = ["idempotency-key", "x-request-id"].map(HeaderName::from_static);
    let to_client = [
        "x-request-id",
        "x-hoody-signature",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "idempotency-replayed",
    ]
    .map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(
            [header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH]
                .into_iter()
                .chain(from_client)
                .collect::<Vec<_>>(),
        )
        .expose_headers([header::ETAG, header::RETRY_AFTER].into_iter().chain(to_client).collect::<Vec<_>>())
        .max_age(CORS_MAX_AGE)
}
