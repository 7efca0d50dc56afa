//! `/containers/{id}/snapshots`.

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::Json,
    path::{Id, Ids},
    time::rfc3339,
};
use crate::{
    app::App,
    error::ServiceError,
    service::snapshot::{self as service, AliasInput, SnapshotInput},
    store::{container::ContainerRow, snapshot::SnapshotRow},
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(restore, patch_restore, remove))
        .routes(routes!(rename, patch_alias))
}

/// A snapshot.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotData {
    name: String,
    alias: Option<String>,
    created_at: String,
    expires_at: Option<String>,
    /// When it was last restored or copied.
    last_used_at: Option<String>,
    /// Bytes that it may keep from being freed.
    size: i64,
    /// Processes are not part of snapshots: false.
    stateful: bool,
}

impl From<SnapshotRow> for SnapshotData {
    fn from(row: SnapshotRow) -> Self {
        Self {
            name: row.name,
            alias: row.alias,
            created_at: rfc3339(row.created_at),
            expires_at: row.expires_at.map(rfc3339),
            last_used_at: row.last_used_at.map(rfc3339),
            size: row.size_bytes,
            stateful: false,
        }
    }
}

/// The snapshots of a container.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotList {
    container_id: String,
    project_id: String,
    /// The oldest first.
    snapshots: Vec<SnapshotData>,
    snapshot_count: usize,
    /// As many as there may be.
    max_snapshots: u32,
}

/// A snapshot of a container.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotOf {
    container_id: String,
    project_id: String,
    snapshot: SnapshotData,
}

impl SnapshotOf {
    fn new((row, snapshot): (ContainerRow, SnapshotRow)) -> Self {
        let (container_id, project_id) = (row.spec.id.to_string(), row.spec.project.to_string());
        Self { container_id, project_id, snapshot: snapshot.into() }
    }
}

/// A restoration.
#[derive(Debug, Serialize, ToSchema)]
struct Restored {
    success: bool,
    message: String,
    snapshot: Option<SnapshotData>,
}

/// A deleted snapshot.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotRemoved {
    container_id: String,
    project_id: String,
    snapshot_name: String,
}

/// List the snapshots of a container
#[utoipa::path(get, path = "/api/v1/containers/{id}/snapshots", operation_id = "containers.listSnapshots", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<SnapshotList>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<SnapshotList>, ServiceError> {
    let listed = service::list(&app, &caller, id).await?;
    let data = SnapshotList {
        container_id: id.to_string(),
        project_id: listed.container.spec.project.to_string(),
        snapshot_count: listed.snapshots.len(),
        snapshots: listed.snapshots.into_iter().map(SnapshotData::from).collect(),
        max_snapshots: listed.most,
    };
    Ok(Reply::ok(data, "snapshots"))
}

/// Take a snapshot of a container
#[utoipa::path(post, path = "/api/v1/containers/{id}/snapshots", operation_id = "containers.createSnapshot", tag = "containers",
    params(("id" = String, Path)), request_body = SnapshotInput,
    responses((status = 200, body = Success<SnapshotOf>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure), (status = 503, body = Failure), (status = 504, body = Failure)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<SnapshotInput>,
) -> Result<Reply<SnapshotOf>, ServiceError> {
    let taken = service::create(&app, &caller, id, input).await?;
    Ok(Reply::ok(SnapshotOf::new(taken), "the snapshot was taken"))
}

/// Restore a snapshot of a container
#[utoipa::path(put, path = "/api/v1/containers/{id}/snapshots/{name}", operation_id = "containers.restoreSnapshot", tag = "containers",
    params(("id" = String, Path), ("name" = String, Path, description = "name or alias")),
    responses((status = 200, body = Success<Restored>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure), (status = 503, body = Failure), (status = 504, body = Failure)))]
async fn restore(
    State(app): State<App>,
    caller: Caller,
    Ids(id, name): Ids<ContainerId, String>,
) -> Result<Reply<Restored>, ServiceError> {
    restored(&app, &caller, id, &name).await
}

/// Restore a snapshot of a container
#[utoipa::path(patch, path = "/api/v1/containers/{id}/snapshots/{name}", operation_id = "containers.patchRestoreSnapshot", tag = "containers",
    params(("id" = String, Path), ("name" = String, Path, description = "name or alias")),
    responses((status = 200, body = Success<Restored>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure), (status = 503, body = Failure), (status = 504, body = Failure)))]
async fn patch_restore(
    State(app): State<App>,
    caller: Caller,
    Ids(id, name): Ids<ContainerId, String>,
) -> Result<Reply<Restored>, ServiceError> {
    restored(&app, &caller, id, &name).await
}

async fn restored(app: &App, caller: &Caller, id: ContainerId, name: &str) -> Result<Reply<Restored>, ServiceError> {
    let snapshot = service::restore(app, caller, id, name).await?;
    let message = format!("the container is what it was in snapshot {}", snapshot.name);
    let data = Restored { success: true, message: message.clone(), snapshot: Some(snapshot.into()) };
    Ok(Reply::ok(data, message))
}

/// Delete a snapshot of a container
#[utoipa::path(delete, path = "/api/v1/containers/{id}/snapshots/{name}", operation_id = "containers.deleteSnapshot", tag = "containers",
    params(("id" = String, Path), ("name" = String, Path, description = "name or alias")),
    responses((status = 200, body = Success<SnapshotRemoved>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure), (status = 503, body = Failure), (status = 504, body = Failure)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Ids(id, name): Ids<ContainerId, String>,
) -> Result<Reply<SnapshotRemoved>, ServiceError> {
    let (row, snapshot) = service::delete(&app, &caller, id, &name).await?;
    let project_id = row.spec.project.to_string();
    let data = SnapshotRemoved { container_id: id.to_string(), project_id, snapshot_name: snapshot.name };
    Ok(Reply::ok(data, "the snapshot was deleted"))
}

/// Give a snapshot another alias
#[utoipa::path(put, path = "/api/v1/containers/{id}/snapshots/{name}/alias", operation_id = "containers.updateSnapshotAlias",
    tag = "containers", params(("id" = String, Path), ("name" = String, Path, description = "name or alias")),
    request_body = AliasInput,
    responses((status = 200, body = Success<SnapshotOf>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn rename(
    State(app): State<App>,
    caller: Caller,
    Ids(id, name): Ids<ContainerId, String>,
    Json(input): Json<AliasInput>,
) -> Result<Reply<SnapshotOf>, ServiceError> {
    renamed(&app, &caller, id, &name, input).await
}

/// Give a snapshot another alias
#[utoipa::path(patch, path = "/api/v1/containers/{id}/snapshots/{name}/alias", operation_id = "containers.patchSnapshotAlias",
    tag = "containers", params(("id" = String, Path), ("name" = String, Path, description = "name or alias")),
    request_body = AliasInput,
    responses((status = 200, body = Success<SnapshotOf>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn patch_alias(
    State(app): State<App>,
    caller: Caller,
    Ids(id, name): Ids<ContainerId, String>,
    Json(input): Json<AliasInput>,
) -> Result<Reply<SnapshotOf>, ServiceError> {
    renamed(&app, &caller, id, &name, input).await
}

async fn renamed(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    name: &str,
    input: AliasInput,
) -> Result<Reply<SnapshotOf>, ServiceError> {
    let renamed = service::rename(app, caller, id, name, input).await?;
    Ok(Reply::ok(SnapshotOf::new(renamed), "the alias was changed"))
}
