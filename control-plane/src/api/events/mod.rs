//! `/events`: the caller's record, and its live delivery as server-sent events ([`stream`]), over WebSocket
//! ([`socket`]) and over Socket.IO ([`socket_io`]).

mod filter;
mod listener;
mod socket;
pub(super) mod socket_io;
mod stream;
mod view;

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::Json,
    path::Id,
    time::rfc3339,
};
use crate::{app::App, error::ServiceError, service::event as service};
use axum::extract::{RawQuery, State};
use filter::{BulkDeleteInput, ListQuery, Parameters};
use hoody_protocol::id::EventId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use view::{EventData, EventListData, StatsData};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, bulk_delete))
        .routes(routes!(stats))
        .routes(routes!(clean_up))
        .routes(routes!(stream::stream))
        .routes(routes!(socket::connect))
        .routes(routes!(get, delete))
}

/// List events
#[utoipa::path(get, path = "/api/v1/events", operation_id = "events.list", tag = "events", params(ListQuery),
    responses((status = 200, body = Success<EventListData>), (status = 400, body = Failure),
        (status = 401, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Reply<EventListData>, ServiceError> {
    let mut parameters = Parameters::of_query(query.as_deref());
    let (filter, slice) = (parameters.filter(), parameters.slice());
    parameters.check()?;
    let (events, total) = service::list(&app, &caller, filter, slice).await?;
    Ok(Reply::ok(EventListData::new(events, slice, total), "here are the events you asked for"))
}

/// Delete the events that a filter lets through
#[utoipa::path(delete, path = "/api/v1/events", operation_id = "events.bulkDelete", tag = "events",
    request_body = BulkDeleteInput,
    responses((status = 200, body = Success<DeletedData>), (status = 400, body = Failure),
        (status = 401, body = Failure)))]
async fn bulk_delete(
    State(app): State<App>,
    caller: Caller,
    Json(input): Json<BulkDeleteInput>,
) -> Result<Reply<DeletedData>, ServiceError> {
    let mut parameters = Parameters::from(input);
    let filter = parameters.filter();
    parameters.check()?;
    let deleted_count = service::bulk_delete(&app, &caller, filter).await?;
    Ok(Reply::ok(DeletedData { deleted_count }, format!("{deleted_count} events were deleted")))
}

#[derive(Serialize, ToSchema)]
struct DeletedData {
    deleted_count: u64,
}

/// Count events
#[utoipa::path(get, path = "/api/v1/events/stats", operation_id = "events.getStats", tag = "events",
    params(("start_date" = Option<String>, Query), ("end_date" = Option<String>, Query),
        ("realm_id" = Option<String>, Query)),
    responses((status = 200, body = Success<StatsData>), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn stats(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Reply<StatsData>, ServiceError> {
    let mut parameters = Parameters::of_query(query.as_deref());
    let filter = parameters.filter();
    parameters.check()?;
    Ok(Reply::ok(service::stats(&app, &caller, filter).await?.into(), "here is what your record holds"))
}

#[derive(Deserialize, ToSchema)]
struct CleanUpInput {
    #[schema(minimum = 1, maximum = 365)]
    retention_days: i64,
}

#[derive(Serialize, ToSchema)]
struct CleanUpData {
    deleted_count: u64,
    retention_days: i64,
    cutoff_date: String,
}

/// Delete events older than a number of days
#[utoipa::path(post, path = "/api/v1/events/cleanup", operation_id = "events.cleanup", tag = "events",
    request_body = CleanUpInput,
    responses((status = 200, body = Success<CleanUpData>), (status = 400, body = Failure),
        (status = 401, body = Failure)))]
async fn clean_up(
    State(app): State<App>,
    caller: Caller,
    Json(CleanUpInput { retention_days }): Json<CleanUpInput>,
) -> Result<Reply<CleanUpData>, ServiceError> {
    let (deleted_count, cutoff) = service::clean_up(&app, &caller, retention_days).await?;
    let data = CleanUpData { deleted_count, retention_days, cutoff_date: rfc3339(cutoff) };
    Ok(Reply::ok(data, format!("{deleted_count} events were deleted")))
}

/// One event
#[utoipa::path(get, path = "/api/v1/events/{id}", operation_id = "events.get", tag = "events",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<EventData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn get(State(app): State<App>, caller: Caller, Id(id): Id<EventId>) -> Result<Reply<EventData>, ServiceError> {
    Ok(Reply::ok((&service::get(&app, &caller, id).await?).into(), "here is the event"))
}

/// Delete one event
#[utoipa::path(delete, path = "/api/v1/events/{id}", operation_id = "events.delete", tag = "events",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<bool>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<EventId>,
) -> Result<Reply<Option<bool>>, ServiceError> {
    service::delete(&app, &caller, id).await?;
    Ok(Reply::ok(None, "the event was deleted"))
}
