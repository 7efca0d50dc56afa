//! Start, stop, force-stop, restart, pause and resume.

use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        path::Ids,
    },
    app::App,
    error::ServiceError,
    service::container::{self as service, Operation},
    store::container::ContainerRow,
};
use axum::extract::State;
use hoody_protocol::{container::State as NodeState, id::ContainerId};
use serde::Serialize;
use utoipa::ToSchema;

/// What became of an operation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Operated {
    container_id: String,
    project_id: String,
    operation: String,
    /// The container's status now.
    status: &'static str,
    /// The server said that it cannot go on; it tries again.
    error: bool,
    message: String,
}

impl Operated {
    /// The operation on the container as it is now.
    pub(in crate::api) fn new(row: &ContainerRow, operation: Operation, message: &str) -> Self {
        let report = row.report.as_ref().filter(|report| report.version >= row.spec.version);
        Self {
            container_id: row.spec.id.to_string(),
            project_id: row.spec.project.to_string(),
            operation: operation.to_string(),
            status: row.status.as_str(),
            error: report.is_some_and(|report| report.state == NodeState::Failed),
            message: message.to_owned(),
        }
    }
}

/// Start, stop, force-stop, restart, pause or resume a container
#[utoipa::path(post, path = "/api/v1/containers/{id}/{operation}", operation_id = "containers.manage", tag = "containers",
    params(("id" = String, Path), ("operation" = String, Path, description = "start, stop, force-stop, restart, pause or resume")),
    responses((status = 200, body = Success<Operated>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure), (status = 502, body = Failure),
        (status = 503, body = Failure), (status = 504, body = Failure)))]
pub(super) async fn operate(
    State(app): State<App>,
    caller: Caller,
    Ids(id, operation): Ids<ContainerId, Operation>,
) -> Result<Reply<Operated>, ServiceError> {
    let (row, message) = service::operate(&app, &caller, id, operation).await?;
    Ok(Reply::ok(Operated::new(&row, operation, &message), message))
}
