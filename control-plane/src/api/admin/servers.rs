//! `/admin/servers`: every server, and the tokens with which their agents join.

mod data;

use super::Admin;
use crate::{
    api::{
        envelope::{Failure, Reply, Success},
        json::Json,
        pagination::{Page, Pagination},
        path::Id,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::{enrolment, server::operate as service},
};
use axum::extract::State;
use data::{ServerData, ServerInput};
use hoody_protocol::id::ServerId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, patch, delete))
        .routes(routes!(disable))
        .routes(routes!(enable))
        .routes(routes!(revoke))
        .routes(routes!(join_token))
}

#[derive(Debug, Serialize, ToSchema)]
struct ServerList {
    servers: Vec<ServerData>,
    pagination: Pagination,
}

#[derive(Debug, Serialize, ToSchema)]
struct JoinTokenData {
    server_id: String,
    /// Shown this once. Run `hoody-agent join <token>` on the server.
    token: String,
    expires_at: String,
}

/// List servers
#[utoipa::path(get, path = "/api/v1/admin/servers", operation_id = "admin.servers.list", tag = "admin", params(Page),
    responses((status = 200, body = Success<ServerList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn list(State(app): State<App>, _admin: Admin, page: Page) -> Result<Reply<ServerList>, ServiceError> {
    let (servers, total) = service::list(&app, page).await?;
    let pagination = page.of(total);
    let servers = servers.into_iter().map(ServerData::from).collect();
    Ok(Reply::list(ServerList { servers, pagination }, pagination))
}

/// Make a server; its agent joins with a token
#[utoipa::path(post, path = "/api/v1/admin/servers", operation_id = "admin.servers.create", tag = "admin",
    request_body = ServerInput,
    responses((status = 201, body = Success<ServerData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 409, body = Failure)))]
async fn create(
    State(app): State<App>,
    _admin: Admin,
    Json(input): Json<ServerInput>,
) -> Result<Reply<ServerData>, ServiceError> {
    let change = input.into_change(&app).await?;
    Ok(Reply::created(service::create(&app, change).await?.into(), "server created: make a join token for its agent"))
}

/// Get a server
#[utoipa::path(get, path = "/api/v1/admin/servers/{id}", operation_id = "admin.servers.get", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<ServerData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn get(State(app): State<App>, _admin: Admin, Id(id): Id<ServerId>) -> Result<Reply<ServerData>, ServiceError> {
    Ok(Reply::ok(service::get(&app, id).await?.into(), "here is the server"))
}

/// Change a server
#[utoipa::path(put, path = "/api/v1/admin/servers/{id}", operation_id = "admin.servers.update", tag = "admin",
    params(("id" = String, Path)), request_body = ServerInput,
    responses((status = 200, body = Success<ServerData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn update(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<ServerId>,
    Json(input): Json<ServerInput>,
) -> Result<Reply<ServerData>, ServiceError> {
    let change = input.into_change(&app).await?;
    Ok(Reply::ok(service::update(&app, id, change).await?.into(), "server updated"))
}

/// Change a server
#[utoipa::path(patch, path = "/api/v1/admin/servers/{id}", operation_id = "admin.servers.patch", tag = "admin",
    params(("id" = String, Path)), request_body = ServerInput,
    responses((status = 200, body = Success<ServerData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn patch(
    app: State<App>,
    admin: Admin,
    id: Id<ServerId>,
    input: Json<ServerInput>,
) -> Result<Reply<ServerData>, ServiceError> {
    update(app, admin, id, input).await
}

/// Delete a server without containers
#[utoipa::path(delete, path = "/api/v1/admin/servers/{id}", operation_id = "admin.servers.delete", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn delete(State(app): State<App>, _admin: Admin, Id(id): Id<ServerId>) -> Result<Reply<()>, ServiceError> {
    service::delete(&app, id).await?;
    Ok(Reply::ok((), "server deleted"))
}

/// Keep a server's agent out for now
///
/// Nothing is placed on the server; its containers run on.
#[utoipa::path(post, path = "/api/v1/admin/servers/{id}/disable", operation_id = "admin.servers.disable", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<ServerData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn disable(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<ServerId>,
) -> Result<Reply<ServerData>, ServiceError> {
    Ok(Reply::ok(service::disable(&app, id).await?.into(), "server disabled"))
}

/// Let a disabled server's agent in again
#[utoipa::path(post, path = "/api/v1/admin/servers/{id}/enable", operation_id = "admin.servers.enable", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<ServerData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn enable(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<ServerId>,
) -> Result<Reply<ServerData>, ServiceError> {
    Ok(Reply::ok(service::enable(&app, id).await?.into(), "server enabled"))
}

/// Keep a server's agent out for good
#[utoipa::path(post, path = "/api/v1/admin/servers/{id}/revoke", operation_id = "admin.servers.revoke", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<ServerData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn revoke(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<ServerId>,
) -> Result<Reply<ServerData>, ServiceError> {
    enrolment::revoke(&app, id).await?;
    Ok(Reply::ok(service::get(&app, id).await?.into(), "server revoked"))
}

/// Make a join token
///
/// It works once and for 15 minutes.
#[utoipa::path(post, path = "/api/v1/admin/servers/{id}/join-token", operation_id = "admin.servers.createJoinToken",
    tag = "admin", params(("id" = String, Path)),
    responses((status = 201, body = Success<JoinTokenData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure), (status = 503, body = Failure)))]
async fn join_token(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<ServerId>,
) -> Result<Reply<JoinTokenData>, ServiceError> {
    let (token, expires_at) = enrolment::create_join_token(&app, id).await?;
    let data = JoinTokenData { server_id: id.to_string(), token, expires_at: rfc3339(expires_at as i64) };
    Ok(Reply::created(data, "run hoody-agent join <token> on the server; the token is shown this once"))
}
