//! Emptying a server: by who rents it, and by operators.

use crate::{
    api::{
        admin::Admin,
        caller::Caller,
        containers::MoveData,
        envelope::{Failure, Reply, Success},
        path::Id,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::server::drain::{self as service, Draining},
};
use axum::extract::State;
use hoody_protocol::id::ServerId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub(in crate::api) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start, read, stop)).routes(routes!(start_any, read_any, stop_any))
}

/// How far a server is being emptied.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerDrainData)]
struct DrainData {
    server_id: String,
    /// `never`, `draining`, `drained` (nothing is left on it or held by it, and nothing is placed on it), or `stopped`.
    state: &'static str,
    started_at: Option<String>,
    stopped_at: Option<String>,
    /// Containers that are on the server.
    remaining: i64,
    /// Containers that moved away and of which the server still holds something; until each is seen on its new server, that is
    /// the only copy that is known to run.
    held: i64,
    moving: usize,
    moved: usize,
    /// Could not be moved: `containers` says why. Begin again to try them again.
    failed: usize,
    /// Cannot be moved just now, and are tried again by themselves.
    waiting: Vec<WaitingData>,
    /// The moves since it began, and those that went on then.
    containers: Vec<MoveData>,
}

/// A container that cannot be moved just now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerDrainWaitingData)]
struct WaitingData {
    container_id: String,
    reason: String,
}

fn data(id: ServerId, found: Draining) -> DrainData {
    let Draining { drain, moves, remaining, held } = found;
    let waiting = drain.as_ref().map(|drain| drain.waiting.clone()).unwrap_or_default();
    let count = |which: fn(&str) -> bool| moves.iter().filter(|seen| which(seen.row.state.as_str())).count();
    DrainData {
        server_id: id.to_string(),
        state: match &drain {
            None => "never",
            Some(drain) if drain.stopped_at.is_some() => "stopped",
            Some(_) if remaining == 0 && held == 0 => "drained",
            Some(_) => "draining",
        },
        started_at: drain.as_ref().map(|drain| rfc3339(drain.started_at)),
        stopped_at: drain.as_ref().and_then(|drain| drain.stopped_at).map(rfc3339),
        remaining,
        held,
        moving: count(|state| !matches!(state, "done" | "failed")),
        moved: count(|state| state == "done"),
        failed: count(|state| state == "failed"),
        waiting: waiting
            .into_iter()
            .map(|(container, reason)| WaitingData { container_id: container.to_string(), reason })
            .collect(),
        containers: moves.into_iter().map(MoveData::from).collect(),
    }
}

const STARTED: &str = "the server takes no new containers, and those it has are moved to others";
const STOPPED: &str = "no move is begun any more, and the server takes containers again; moves that were begun go on";
const READ: &str = "here is how far the server is being emptied";

/// Empty a server you rent
///
/// Nothing is placed on it any more, and its containers are moved with their snapshots to other servers that their owners may
/// use, two at a time.
#[utoipa::path(post, path = "/api/v1/servers/{id}/drain", operation_id = "serverRental.drain", tag = "servers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<DrainData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn start(State(app): State<App>, caller: Caller, Id(id): Id<ServerId>) -> Result<Reply<DrainData>, ServiceError> {
    service::authorise_owner(&app, &caller, id).await?;
    Ok(Reply::ok(data(id, service::start(&app, &caller, id).await?), STARTED))
}

/// How far a server you rent is being emptied
#[utoipa::path(get, path = "/api/v1/servers/{id}/drain", operation_id = "serverRental.getDrain", tag = "servers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<DrainData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn read(State(app): State<App>, caller: Caller, Id(id): Id<ServerId>) -> Result<Reply<DrainData>, ServiceError> {
    service::authorise_owner(&app, &caller, id).await?;
    Ok(Reply::ok(data(id, service::read(&app, id).await?), READ))
}

/// Stop emptying a server you rent
#[utoipa::path(delete, path = "/api/v1/servers/{id}/drain", operation_id = "serverRental.stopDrain", tag = "servers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<DrainData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn stop(State(app): State<App>, caller: Caller, Id(id): Id<ServerId>) -> Result<Reply<DrainData>, ServiceError> {
    service::authorise_owner(&app, &caller, id).await?;
    Ok(Reply::ok(data(id, service::stop(&app, &caller, id).await?), STOPPED))
}

/// Empty a server
///
/// Nothing is placed on it any more, and its containers are moved with their snapshots to other servers that their owners may
/// use, two at a time.
#[utoipa::path(post, path = "/api/v1/admin/servers/{id}/drain", operation_id = "admin.servers.drain", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<DrainData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn start_any(
    State(app): State<App>,
    Admin(caller): Admin,
    Id(id): Id<ServerId>,
) -> Result<Reply<DrainData>, ServiceError> {
    Ok(Reply::ok(data(id, service::start(&app, &caller, id).await?), STARTED))
}

/// How far a server is being emptied
#[utoipa::path(get, path = "/api/v1/admin/servers/{id}/drain", operation_id = "admin.servers.getDrain", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<DrainData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn read_any(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<ServerId>,
) -> Result<Reply<DrainData>, ServiceError> {
    Ok(Reply::ok(data(id, service::read(&app, id).await?), READ))
}

/// Stop emptying a server
#[utoipa::path(delete, path = "/api/v1/admin/servers/{id}/drain", operation_id = "admin.servers.stopDrain", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<DrainData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn stop_any(
    State(app): State<App>,
    Admin(caller): Admin,
    Id(id): Id<ServerId>,
) -> Result<Reply<DrainData>, ServiceError> {
    Ok(Reply::ok(data(id, service::stop(&app, &caller, id).await?), STOPPED))
}
