//! `/containers/{id}/storage` and `/storage`: folders shared between containers.

mod data;

use super::{
    caller::Caller,
    containers::written,
    envelope::{Failure, Reply, Success},
    json::Json,
    path::{Id, Ids},
    query::Query,
};
use crate::{
    app::App,
    error::ServiceError,
    service::share::{self as service, ChoiceInput, CreateInput, ListFilter, UpdateInput},
};
use axum::extract::State;
use data::{IncomingShareData, ShareData, ShareMountData};
use hoody_protocol::id::{ContainerId, InvalidId, RealmId, ShareId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update))
        .routes(routes!(list_incoming))
        .routes(routes!(choose))
        .routes(routes!(list_all))
        .routes(routes!(list_incoming_all))
        .routes(routes!(remove))
}

/// Which shares of a container.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ShareQuery {
    /// `container` or `project`.
    target_type: Option<String>,
    /// Only shares with this label.
    label: Option<String>,
    /// `active` or `failed`.
    status: Option<String>,
    /// `true` or `false`.
    enabled: Option<String>,
    /// `true`: also shares that are over.
    include_expired: Option<String>,
    /// Only shares of this realm.
    realm_id: Option<String>,
}

/// Of which realm.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ShareRealmQuery {
    /// Only shares of this realm.
    realm_id: Option<String>,
}

fn realm(text: Option<&str>) -> Result<Option<RealmId>, ServiceError> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: InvalidId| ServiceError::invalid("realm_id", error.to_string()))
}

/// One of two words.
fn either(field: &str, text: Option<&str>, yes: &str, no: &str) -> Result<Option<bool>, ServiceError> {
    match text {
        None => Ok(None),
        Some(word) if word == yes => Ok(Some(true)),
        Some(word) if word == no => Ok(Some(false)),
        Some(_) => Err(ServiceError::invalid(field, format!("must be {yes} or {no}"))),
    }
}

impl ShareQuery {
    fn filter(self) -> Result<ListFilter, ServiceError> {
        Ok(ListFilter {
            for_containers: either("target_type", self.target_type.as_deref(), "container", "project")?,
            failed: either("status", self.status.as_deref(), "failed", "active")?,
            enabled: either("enabled", self.enabled.as_deref(), "true", "false")?,
            expired: either("include_expired", self.include_expired.as_deref(), "true", "false")?.unwrap_or(false),
            realm: realm(self.realm_id.as_deref())?,
            label: self.label,
        })
    }
}

/// List the shares of a container's folders
#[utoipa::path(get, path = "/api/v1/containers/{id}/storage/shares", operation_id = "storageShares.list", tag = "storageShares",
    params(("id" = String, Path), ShareQuery),
    responses((status = 200, body = Success<Vec<ShareData>>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Query(query): Query<ShareQuery>,
) -> Result<Reply<Vec<ShareData>>, ServiceError> {
    let found = service::list(&app, &caller, id, query.filter()?).await?;
    Ok(Reply::ok(found.into_iter().map(Into::into).collect(), "here are the shares of the container"))
}

/// Share a folder of a container
#[utoipa::path(post, path = "/api/v1/containers/{id}/storage/shares", operation_id = "storageShares.create", tag = "storageShares",
    params(("id" = String, Path)), request_body = CreateInput,
    responses((status = 201, body = Success<ShareData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure), (status = 422, body = Failure),
        (status = 501, body = Failure)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<CreateInput>,
) -> Result<Reply<ShareData>, ServiceError> {
    let (view, progress) = service::create(&app, &caller, id, input).await?;
    Ok(Reply::created(view.into(), written(progress, "folder shared")))
}

/// Read a share
#[utoipa::path(get, path = "/api/v1/containers/{id}/storage/shares/{shareId}", operation_id = "storageShares.get",
    tag = "storageShares", params(("id" = String, Path), ("shareId" = String, Path)),
    responses((status = 200, body = Success<ShareData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Ids(id, share): Ids<ContainerId, ShareId>,
) -> Result<Reply<ShareData>, ServiceError> {
    Ok(Reply::ok(service::get(&app, &caller, id, share).await?.into(), "here is the share"))
}

/// Change a share
#[utoipa::path(patch, path = "/api/v1/containers/{id}/storage/shares/{shareId}", operation_id = "storageShares.update",
    tag = "storageShares", params(("id" = String, Path), ("shareId" = String, Path)), request_body = UpdateInput,
    responses((status = 200, body = Success<ShareData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure), (status = 501, body = Failure)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Ids(id, share): Ids<ContainerId, ShareId>,
    Json(input): Json<UpdateInput>,
) -> Result<Reply<ShareData>, ServiceError> {
    let (view, progress) = service::update(&app, &caller, id, share, input).await?;
    Ok(Reply::ok(view.into(), written(progress, "share updated")))
}

/// List the shares for a container
#[utoipa::path(get, path = "/api/v1/containers/{id}/storage/incoming", operation_id = "storageShares.listIncoming",
    tag = "storageShares", params(("id" = String, Path)),
    responses((status = 200, body = Success<Vec<IncomingShareData>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 404, body = Failure)))]
async fn list_incoming(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<Vec<IncomingShareData>>, ServiceError> {
    let found = service::list_incoming(&app, &caller, id).await?;
    Ok(Reply::ok(found.into_iter().map(Into::into).collect(), "here are the shares for the container"))
}

/// Accept or refuse a share for a container
#[utoipa::path(patch, path = "/api/v1/containers/{id}/storage/incoming/{shareId}/mount",
    operation_id = "storageShares.toggleIncomingMount", tag = "storageShares",
    params(("id" = String, Path), ("shareId" = String, Path)), request_body = ChoiceInput,
    responses((status = 200, body = Success<ShareMountData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn choose(
    State(app): State<App>,
    caller: Caller,
    Ids(id, share): Ids<ContainerId, ShareId>,
    Json(input): Json<ChoiceInput>,
) -> Result<Reply<ShareMountData>, ServiceError> {
    let (view, choice, progress) = service::choose(&app, &caller, id, share, input).await?;
    let done = if choice.mount { "share accepted" } else { "share refused" };
    Ok(Reply::ok(ShareMountData { share: view.into(), choice: choice.into() }, written(progress, done)))
}

/// List the shares of all containers
#[utoipa::path(get, path = "/api/v1/storage/shares", operation_id = "storageShares.listGlobal", tag = "storageShares",
    params(ShareRealmQuery),
    responses((status = 200, body = Success<Vec<ShareData>>), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn list_all(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ShareRealmQuery>,
) -> Result<Reply<Vec<ShareData>>, ServiceError> {
    let found = service::list_all(&app, &caller, realm(query.realm_id.as_deref())?).await?;
    Ok(Reply::ok(found.into_iter().map(Into::into).collect(), "here are the shares of your containers"))
}

/// List the shares for all containers and projects
#[utoipa::path(get, path = "/api/v1/storage/incoming", operation_id = "storageShares.listIncomingGlobal",
    tag = "storageShares", params(ShareRealmQuery),
    responses((status = 200, body = Success<Vec<IncomingShareData>>), (status = 400, body = Failure),
        (status = 401, body = Failure)))]
async fn list_incoming_all(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ShareRealmQuery>,
) -> Result<Reply<Vec<IncomingShareData>>, ServiceError> {
    let found = service::list_incoming_all(&app, &caller, realm(query.realm_id.as_deref())?).await?;
    Ok(Reply::ok(found.into_iter().map(Into::into).collect(), "here are the shares for your containers"))
}

/// End a share
#[utoipa::path(delete, path = "/api/v1/storage/shares/{shareId}", operation_id = "storageShares.delete", tag = "storageShares",
    params(("shareId" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn remove(State(app): State<App>, caller: Caller, Id(id): Id<ShareId>) -> Result<Reply<()>, ServiceError> {
    let progress = service::delete(&app, &caller, id).await?;
    Ok(Reply::ok((), written(progress, "share ended")))
}
