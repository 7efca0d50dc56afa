//! `/pools`.

mod data;
mod members;

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::Json,
    path::Id,
};
use crate::{app::App, error::ServiceError, service::pool as service};
use axum::extract::State;
use data::{DONE, DetailsData, Done, ListedData, PoolData, PoolInput};
use hoody_protocol::id::PoolId;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(members::invitations))
        .routes(routes!(get, update, patch, delete))
        .routes(routes!(members::invite))
        .routes(routes!(members::update_role, members::patch_role, members::remove))
        .routes(routes!(members::accept))
        .routes(routes!(members::reject))
}

/// The pools you own or are a member of
#[utoipa::path(get, path = "/api/v1/pools", operation_id = "pools.list", tag = "pools",
    responses((status = 200, body = Success<Vec<ListedData>>), (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Reply<Vec<ListedData>>, ServiceError> {
    let pools = service::list(&app, &caller).await?;
    Ok(Reply::ok(pools.into_iter().map(ListedData::from).collect(), "these are your pools"))
}

/// Create a pool
#[utoipa::path(post, path = "/api/v1/pools", operation_id = "pools.create", tag = "pools", request_body = PoolInput,
    responses((status = 200, body = Success<PoolData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 409, body = Failure), (status = 422, body = Failure)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(input): Json<PoolInput>,
) -> Result<Reply<PoolData>, ServiceError> {
    Ok(Reply::ok(service::create(&app, &caller, input.into()).await?.into(), "pool created"))
}

/// Get a pool with its members and servers
#[utoipa::path(get, path = "/api/v1/pools/{id}", operation_id = "pools.get", tag = "pools", params(("id" = String, Path)),
    responses((status = 200, body = Success<DetailsData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn get(State(app): State<App>, caller: Caller, Id(id): Id<PoolId>) -> Result<Reply<DetailsData>, ServiceError> {
    Ok(Reply::ok(service::get(&app, &caller, id).await?.into(), "here is the pool"))
}

/// Change a pool
#[utoipa::path(put, path = "/api/v1/pools/{id}", operation_id = "pools.update", tag = "pools",
    params(("id" = String, Path)), request_body = PoolInput,
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<PoolId>,
    Json(input): Json<PoolInput>,
) -> Result<Reply<Done>, ServiceError> {
    service::update(&app, &caller, id, input.into()).await?;
    Ok(Reply::ok(DONE, "pool updated"))
}

/// Change a pool
#[utoipa::path(patch, path = "/api/v1/pools/{id}", operation_id = "pools.patch", tag = "pools",
    params(("id" = String, Path)), request_body = PoolInput,
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn patch(
    app: State<App>,
    caller: Caller,
    id: Id<PoolId>,
    input: Json<PoolInput>,
) -> Result<Reply<Done>, ServiceError> {
    update(app, caller, id, input).await
}

/// Delete a pool
///
/// Its servers are in their owners' default pools then.
#[utoipa::path(delete, path = "/api/v1/pools/{id}", operation_id = "pools.delete", tag = "pools",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Done>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn delete(State(app): State<App>, caller: Caller, Id(id): Id<PoolId>) -> Result<Reply<Done>, ServiceError> {
    service::delete(&app, &caller, id).await?;
    Ok(Reply::ok(DONE, "pool deleted"))
}
