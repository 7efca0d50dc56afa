//! The answer to a request with an `Idempotency-Key` that a process committed and did not live to give.
//!
//! It is made from what is there now: in the form of the lost answer for what creates or operates a container or
//! creates a project, and otherwise with the id of what was changed. Secrets that are shown once are lost.

use crate::{
    api::{
        caller::Caller,
        containers::{ContainerData, Operated},
        envelope::Reply,
        projects::ProjectData,
    },
    app::App,
    error::ServiceError,
    service::{container, project},
    store::idempotency::Effect,
};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

const MESSAGE: &str = "done by the first request with this Idempotency-Key, whose own answer was lost";

/// What was changed, where no form of its own is known.
#[derive(Debug, Serialize)]
struct Changed {
    resource_type: String,
    id: String,
}

/// The answer of the request to `path`.
pub(super) async fn answer(app: &App, caller: &Caller, path: &str, effect: Effect) -> Result<Response, ServiceError> {
    let segments: Vec<_> = path.trim_matches('/').split('/').collect();
    Ok(match (&segments[..], &effect.id.parse(), &effect.id.parse()) {
        (["api", "v1", "projects", _, "containers"] | ["api", "v1", "containers", _, "copy"], Ok(id), _) => {
            let row = container::get(app, caller, *id).await?;
            Reply::<ContainerData>::ok(row.into(), MESSAGE).into_response()
        }
        (["api", "v1", "containers", id, operation], ..)
            if let (Ok(id), Ok(operation)) = (id.parse(), operation.parse()) =>
        {
            let row = container::get(app, caller, id).await?;
            Reply::ok(Operated::new(&row, operation, MESSAGE), MESSAGE).into_response()
        }
        (["api", "v1", "projects"], _, Ok(id)) => {
            let project = project::get(app, caller, *id).await?;
            Reply::<ProjectData>::created(project.into(), MESSAGE).into_response()
        }
        _ => {
            let changed = Changed { resource_type: effect.what, id: effect.id };
            Reply::new(StatusCode::OK, changed, MESSAGE).into_response()
        }
    })
}
