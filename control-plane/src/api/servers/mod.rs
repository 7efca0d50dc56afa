//! `/servers` and `/rentals`. A server's rental is part of its row, so both have its id.

mod data;
mod drain;
mod runtime;

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    path::Id,
};
use crate::{
    app::App,
    error::ServiceError,
    service::server::{self as service, Filter},
};
use axum::extract::{RawQuery, State};
use data::{Offer, Rental};
use hoody_protocol::id::ServerId;
use runtime::RuntimeData;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(browse))
        .routes(routes!(get))
        .routes(routes!(server_runtime))
        .routes(routes!(rentals))
        .routes(routes!(rental))
        .routes(routes!(rental_runtime))
        .merge(drain::router())
}

/// The servers you rent
#[utoipa::path(get, path = "/api/v1/servers", operation_id = "serverRental.list", tag = "servers",
    responses((status = 200, body = Success<Vec<Rental>>), (status = 401, body = Failure)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Reply<Vec<Rental>>, ServiceError> {
    let servers = service::rented(&app, &caller).await?;
    Ok(Reply::ok(servers.into_iter().map(Rental::from).collect(), "these are the servers you rent"))
}

/// A server you rent
#[utoipa::path(get, path = "/api/v1/servers/{id}", operation_id = "serverRental.get", tag = "servers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Rental>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn get(State(app): State<App>, caller: Caller, Id(id): Id<ServerId>) -> Result<Reply<Rental>, ServiceError> {
    Ok(Reply::ok(service::with_role(&app, &caller, id).await?.into(), "here is the server"))
}

/// Your rentals
///
/// What they cost is not known to this platform version: there is no wallet.
#[utoipa::path(get, path = "/api/v1/rentals", operation_id = "rentals.list", tag = "servers",
    responses((status = 200, body = Success<Vec<Rental>>), (status = 401, body = Failure)))]
async fn rentals(app: State<App>, caller: Caller) -> Result<Reply<Vec<Rental>>, ServiceError> {
    list(app, caller).await
}

/// A rental of yours
#[utoipa::path(get, path = "/api/v1/rentals/{id}", operation_id = "rentals.get", tag = "servers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Rental>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn rental(app: State<App>, caller: Caller, id: Id<ServerId>) -> Result<Reply<Rental>, ServiceError> {
    get(app, caller, id).await
}

/// Servers that can be rented
///
/// A server about which a filter's fact is not known does not match it.
#[utoipa::path(get, path = "/api/v1/servers/available", operation_id = "serverRental.browse", tag = "servers",
    params(
        ("country" = Option<String>, Query), ("region" = Option<String>, Query),
        ("max_price_per_day" = Option<f64>, Query), ("available_durations" = Option<Vec<f64>>, Query),
        ("min_cpu_cores" = Option<f64>, Query), ("min_cpu_score" = Option<f64>, Query),
        ("cpu_score_type" = Option<String>, Query), ("min_ram_gb" = Option<f64>, Query),
        ("ram_types" = Option<Vec<String>>, Query), ("min_total_storage_gb" = Option<f64>, Query),
        ("disk_types" = Option<Vec<String>>, Query), ("min_bandwidth_mbps" = Option<f64>, Query),
        ("min_traffic_tb" = Option<f64>, Query), ("unlimited_traffic_only" = Option<bool>, Query),
        ("category" = Option<String>, Query), ("featured_only" = Option<bool>, Query)),
    responses((status = 200, body = Success<Vec<Offer>>), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn browse(
    State(app): State<App>,
    _caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Reply<Vec<Offer>>, ServiceError> {
    let query = query.unwrap_or_default();
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let servers = service::available(&app, &Filter::parse(&pairs)?).await?;
    Ok(Reply::ok(servers.into_iter().map(Offer::from).collect(), "these servers can be rented"))
}

/// What a server you rent is doing
#[utoipa::path(get, path = "/api/v1/servers/{id}/runtime", operation_id = "serverRental.getServerRuntime",
    tag = "servers", params(("id" = String, Path)),
    responses((status = 200, body = Success<RuntimeData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn server_runtime(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ServerId>,
) -> Result<Reply<RuntimeData>, ServiceError> {
    Ok(Reply::ok(service::runtime(&app, &caller, id).await?.into(), "here is its last measurement"))
}

/// What the server of a rental is doing
#[utoipa::path(get, path = "/api/v1/rentals/{id}/runtime", operation_id = "serverRental.getRentalRuntime",
    tag = "servers", params(("id" = String, Path)),
    responses((status = 200, body = Success<RuntimeData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn rental_runtime(app: State<App>, caller: Caller, id: Id<ServerId>) -> Result<Reply<RuntimeData>, ServiceError> {
    server_runtime(app, caller, id).await
}
