//! Creating a container.

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
    service::container::{self as service, CreateInput},
};
use axum::extract::State;
use hoody_protocol::id::ProjectId;

/// Create a container
#[utoipa::path(post, path = "/api/v1/projects/{id}/containers", operation_id = "containers.create", tag = "containers",
    params(("id" = String, Path)), request_body = CreateInput,
    responses((status = 200, body = Success<ContainerData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure), (status = 422, body = Failure),
        (status = 501, body = Failure)))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
    Json(input): Json<CreateInput>,
) -> Result<Reply<ContainerData>, ServiceError> {
    let (row, progress) = service::create(&app, &caller, id, input).await?;
    Ok(Reply::ok(ContainerData::from(row).created(), written(progress, "container created")))
}
