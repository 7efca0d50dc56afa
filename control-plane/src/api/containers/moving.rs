//! Moving a container to another server.

use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        json::Json,
        path::Id,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::container::{
        MoveInput,
        moving::{self as service, Seen},
    },
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::Serialize;
use utoipa::ToSchema;

/// A move of a container to another server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ContainerMoveData)]
pub(in crate::api) struct MoveData {
    id: String,
    container_id: String,
    /// The container's name when it began.
    container_name: String,
    /// `copying`, `syncing`, `stopping`, `finishing`, `starting`, `done`, or `failed`.
    state: &'static str,
    source_server_id: String,
    /// Null: no server could take it.
    target_server_id: Option<String>,
    /// Because its server is being emptied.
    drain: bool,
    /// Bytes that were sent, without what is on its way.
    bytes: i64,
    /// Bytes taken of what is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_on_the_way: Option<u64>,
    /// Bytes that this will come to, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_on_the_way_total: Option<u64>,
    /// Milliseconds between the request to stop it and its running on the new server; null: it did not run, or does not
    /// yet.
    pause_ms: Option<i64>,
    /// Why it failed; the container is where it was.
    cause: Option<MoveCause>,
    requested_at: String,
    ended_at: Option<String>,
}

/// Why a move failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ContainerMoveCause)]
struct MoveCause {
    code: String,
    message: String,
}

impl From<Seen> for MoveData {
    fn from(Seen { row, progress }: Seen) -> Self {
        Self {
            id: row.id.to_string(),
            container_id: row.container.to_string(),
            container_name: row.name,
            state: row.state.as_str(),
            source_server_id: row.source.to_string(),
            target_server_id: row.target.map(|target| target.to_string()),
            drain: row.drain,
            bytes: row.bytes,
            bytes_on_the_way: progress.map(|(done, _)| done),
            bytes_on_the_way_total: progress.and_then(|(_, total)| total),
            pause_ms: row.pause_ms,
            cause: row
                .failure
                .map(|cause| MoveCause { code: cause.code.to_string(), message: cause.message.to_string() }),
            requested_at: rfc3339(row.created_at),
            ended_at: row.ended_at.map(rfc3339),
        }
    }
}

/// Move a container to another server
///
/// It goes on after the answer. The container runs until what it has is on the other server, its snapshots too, and is then
/// stopped for the time that the last of it takes.
#[utoipa::path(post, path = "/api/v1/containers/{id}/move", operation_id = "containers.move", tag = "containers",
    params(("id" = String, Path)), request_body = MoveInput,
    responses((status = 200, body = Success<MoveData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 422, body = Failure), (status = 503, body = Failure)))]
pub(super) async fn start(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<MoveInput>,
) -> Result<Reply<MoveData>, ServiceError> {
    let begun = service::start(&app, &caller, id, input).await?;
    Ok(Reply::ok(begun.into(), "the move has begun: read it again to follow"))
}

/// The last move of a container
#[utoipa::path(get, path = "/api/v1/containers/{id}/move", operation_id = "containers.getMove", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<MoveData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn last(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<MoveData>, ServiceError> {
    Ok(Reply::ok(service::last(&app, &caller, id).await?.into(), "here is the container's last move"))
}
