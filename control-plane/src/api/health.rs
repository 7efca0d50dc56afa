//! Probes: `/healthz` says that the process answers, `/readyz` that it can work.

use super::envelope::{Failure, Reply, Success};
use crate::error::chain;
use crate::{app::App, error::ServiceError};
use axum::extract::State;
use std::time::Duration;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long the database may take to answer a probe.
const DATABASE_DEADLINE: Duration = Duration::from_secs(3);

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

/// The process answers
#[utoipa::path(get, path = "/healthz", operation_id = "health.live", tag = "health", security(()),
    responses((status = 200, body = Success<Option<String>>)))]
async fn healthz() -> Reply<()> {
    Reply::ok((), "alive")
}

/// The process can work: the database answers
#[utoipa::path(get, path = "/readyz", operation_id = "health.ready", tag = "health", security(()),
    responses((status = 200, body = Success<Option<String>>), (status = 503, body = Failure)))]
async fn readyz(State(app): State<App>) -> Result<Reply<()>, ServiceError> {
    match tokio::time::timeout(DATABASE_DEADLINE, app.store.check()).await {
        Ok(Ok(())) => Ok(Reply::ok((), "ready")),
        failed => {
            match failed {
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "the database does not answer"),
                _ => tracing::warn!("the database does not answer in time"),
            }
            Err(ServiceError::Unavailable("the database does not answer".to_owned()))
        }
    }
}
