//! The last lines of defence: a panic becomes a 500, a request that takes too long a 503.

use crate::{
    api::{
        containers::{exec, import},
        envelope,
    },
    app::App,
    error::ServiceError,
};
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{any::Any, time::Duration};

pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("(not a text)"), "a request handler panicked");
    envelope::internal()
}

pub(super) async fn deadline(State(app): State<App>, request: Request, next: Next) -> Response {
    // A process that a client waits for, and an upload, have limits of their own.
    let more = match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        Some(exec::PATH) => exec::LONGEST,
        Some(import::PATH) => import::LONGEST,
        _ => Duration::ZERO,
    };
    let deadline = app.config.request_deadline + more;
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!("a request took longer than the request deadline");
            ServiceError::Unavailable("this took too long; look at the resource before trying again".to_owned())
                .into_response()
        }
    }
}
