//! KVM of a container.

use super::written;
use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        json::Json,
        path::Id,
    },
    app::App,
    error::ServiceError,
    service::container::{self as service, KvmInput},
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::Serialize;
use utoipa::ToSchema;

/// Whether a container has KVM.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KvmData {
    id: String,
    name: String,
    status: &'static str,
    kvm: bool,
}

/// Give a stopped container KVM, or take it away
#[utoipa::path(put, path = "/api/v1/containers/{id}/kvm", operation_id = "containers.setContainerKvm", tag = "containers",
    params(("id" = String, Path)), request_body = KvmInput,
    responses((status = 200, body = Success<KvmData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 422, body = Failure)))]
pub(super) async fn set(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<KvmInput>,
) -> Result<Reply<KvmData>, ServiceError> {
    let (row, progress) = service::set_kvm(&app, &caller, id, input).await?;
    let kvm = row.spec.kvm;
    let done = if kvm { "the container has KVM from its next start on" } else { "the container has no KVM" };
    let data = KvmData { id: id.to_string(), name: row.name, status: row.status.as_str(), kvm };
    Ok(Reply::ok(data, written(progress, done)))
}
