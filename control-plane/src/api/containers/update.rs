//! Updating a container.

use super::{view::ContainerData, written};
use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        json::Json,
        path::Id,
    },
    app::App,
    error::ServiceError,
    service::container::{self as service, UpdateInput},
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;

/// Change a container
#[utoipa::path(put, path = "/api/v1/containers/{id}", operation_id = "containers.update", tag = "containers",
    params(("id" = String, Path)), request_body = UpdateInput,
    responses((status = 200, body = Success<ContainerData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure), (status = 501, body = Failure)))]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<UpdateInput>,
) -> Result<Reply<ContainerData>, ServiceError> {
    let (row, progress) = service::update(&app, &caller, id, input).await?;
    Ok(Reply::ok(row.into(), written(progress, "container updated")))
}

/// Change a container
#[utoipa::path(patch, path = "/api/v1/containers/{id}", operation_id = "containers.patch", tag = "containers",
    params(("id" = String, Path)), request_body = UpdateInput,
    responses((status = 200, body = Success<ContainerData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure), (status = 501, body = Failure)))]
pub(super) async fn patch(
    app: State<App>,
    caller: Caller,
    id: Id<ContainerId>,
    input: Json<UpdateInput>,
) -> Result<Reply<ContainerData>, ServiceError> {
    update(app, caller, id, input).await
}
