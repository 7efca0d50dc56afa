//! Copying a container.

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
    service::container::{self as service, CopyInput},
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::Serialize;
use utoipa::ToSchema;

/// A copy, and what was taken along.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CopyData {
    #[serde(flatten)]
    container: ContainerData,
    /// It has the origin's firewall rules.
    copy_firewall_rules: bool,
    /// It has the origin's network configuration.
    copy_network_rules: bool,
}

/// Copy a container, as it is or as one of its snapshots has it
#[utoipa::path(post, path = "/api/v1/containers/{id}/copy", operation_id = "containers.copy", tag = "containers",
    params(("id" = String, Path)), request_body = CopyInput,
    responses((status = 200, body = Success<CopyData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 422, body = Failure), (status = 503, body = Failure)))]
pub(super) async fn copy(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<CopyInput>,
) -> Result<Reply<CopyData>, ServiceError> {
    let (copied, progress) = service::copy(&app, &caller, id, input).await?;
    let container = ContainerData::from(copied.row).created();
    let data = CopyData { container, copy_firewall_rules: copied.firewall, copy_network_rules: copied.network };
    Ok(Reply::ok(data, written(progress, "the container was copied")))
}
