//! `/containers/{id}/network`.

use super::{
    caller::Caller,
    containers::written,
    envelope::{Failure, Reply, Success},
    json::Json,
    path::Id,
    time::rfc3339,
};
use crate::{
    app::App,
    error::ServiceError,
    service::network::{self as service, NetworkInput},
    store::container::ContainerRow,
};
use axum::extract::State;
use hoody_protocol::{container::Cause, id::ContainerId};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, update, patch, remove)).routes(routes!(start)).routes(routes!(stop))
}

/// A configuration. Credentials are never part of it.
#[derive(Debug, Serialize, ToSchema)]
struct NetworkData {
    container_id: String,
    /// `socks5`, `http`, `https` or `block`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// The upstream, without credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    /// There are credentials for it.
    credentials_configured: bool,
    dns_servers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    city: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configured_at: Option<String>,
    /// `configured`: not asked for yet, or not in force yet. `running`, `stopped`, or `error`: nothing leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

/// A configuration, and how it fares.
#[derive(Debug, Serialize, ToSchema)]
struct NetworkState {
    #[serde(flatten)]
    data: NetworkData,
    /// There is one.
    configured: bool,
    /// When the server last said how it fares.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_status_check: Option<String>,
    remote_status: RemoteStatus,
}

/// What the server says.
#[derive(Debug, Serialize, ToSchema)]
struct RemoteStatus {
    /// It does what was asked.
    is_running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<String>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<RemoteCause>,
}

/// Why nothing leaves.
#[derive(Debug, Serialize, ToSchema)]
struct RemoteCause {
    code: String,
    message: String,
}

/// What starting and stopping came to.
#[derive(Debug, Serialize, ToSchema)]
struct Switched {
    container_id: String,
    status: &'static str,
    is_running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<String>,
}

impl From<Cause> for RemoteCause {
    fn from(cause: Cause) -> Self {
        Self { code: cause.code.to_string(), message: cause.message.to_string() }
    }
}

impl NetworkData {
    fn of(row: &ContainerRow) -> Self {
        let network = row.attributes.network.as_ref();
        let text = |value: Option<&Option<String>>| value.cloned().flatten();
        Self {
            container_id: row.spec.id.to_string(),
            kind: network.map(|network| network.kind.as_str()),
            proxy: text(network.map(|network| &network.proxy)),
            credentials_configured: !row.egress_credentials.is_empty(),
            dns_servers: network
                .into_iter()
                .flat_map(|network| &network.dns_servers)
                .map(ToString::to_string)
                .collect(),
            country: text(network.map(|network| &network.country)),
            region: text(network.map(|network| &network.region)),
            city: text(network.map(|network| &network.city)),
            comment: text(network.map(|network| &network.comment)),
            configured_at: network.map(|network| rfc3339(network.configured_at)),
            status: network.map(|_| service::standing(row).status),
        }
    }
}

impl NetworkState {
    fn of(row: &ContainerRow) -> Self {
        let standing = service::standing(row);
        let last_check = standing.checked_at.map(rfc3339);
        Self {
            data: NetworkData::of(row),
            configured: row.attributes.network.is_some(),
            last_status_check: last_check.clone(),
            remote_status: RemoteStatus {
                is_running: standing.is_running,
                last_check,
                cause: standing.cause.map(Into::into),
            },
        }
    }
}

/// Read a container's network configuration
#[utoipa::path(get, path = "/api/v1/containers/{id}/network", operation_id = "containers.getNetworkConfig", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<NetworkState>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<NetworkState>, ServiceError> {
    let row = service::get(&app, &caller, id).await?;
    Ok(Reply::ok(NetworkState::of(&row), "here is the network configuration"))
}

/// Change a container's network configuration
#[utoipa::path(put, path = "/api/v1/containers/{id}/network", operation_id = "containers.updateNetworkConfig", tag = "containers",
    params(("id" = String, Path)), request_body = NetworkInput,
    responses((status = 200, body = Success<NetworkData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure), (status = 501, body = Failure),
        (status = 502, body = Failure)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<NetworkInput>,
) -> Result<Reply<NetworkData>, ServiceError> {
    let (row, progress) = service::update(&app, &caller, id, input).await?;
    let data = NetworkData::of(&row);
    let message = match data.status {
        Some("configured") if row.spec.egress.is_none() => "network configured: start it to put it in force".to_owned(),
        _ => written(progress, "network configured"),
    };
    Ok(Reply::ok(data, message))
}

/// Change a container's network configuration
#[utoipa::path(patch, path = "/api/v1/containers/{id}/network", operation_id = "containers.patchNetworkConfig", tag = "containers",
    params(("id" = String, Path)), request_body = NetworkInput,
    responses((status = 200, body = Success<NetworkData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure), (status = 501, body = Failure),
        (status = 502, body = Failure)))]
async fn patch(
    app: State<App>,
    caller: Caller,
    id: Id<ContainerId>,
    input: Json<NetworkInput>,
) -> Result<Reply<NetworkData>, ServiceError> {
    update(app, caller, id, input).await
}

/// Remove a container's network configuration
#[utoipa::path(delete, path = "/api/v1/containers/{id}/network", operation_id = "containers.removeNetworkConfig", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure), (status = 502, body = Failure)))]
async fn remove(State(app): State<App>, caller: Caller, Id(id): Id<ContainerId>) -> Result<Reply<()>, ServiceError> {
    let (_, progress) = service::remove(&app, &caller, id).await?;
    Ok(Reply::ok((), written(progress, "network configuration removed")))
}

/// Put a container's network configuration in force
#[utoipa::path(post, path = "/api/v1/containers/{id}/network/start", operation_id = "containers.startNetwork", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Switched>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure), (status = 502, body = Failure)))]
async fn start(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<Switched>, ServiceError> {
    switch(app, caller, id, true).await
}

/// Take a container's network configuration out of force
#[utoipa::path(post, path = "/api/v1/containers/{id}/network/stop", operation_id = "containers.stopNetwork", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Switched>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure), (status = 502, body = Failure)))]
async fn stop(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<Switched>, ServiceError> {
    switch(app, caller, id, false).await
}

async fn switch(app: App, caller: Caller, id: ContainerId, started: bool) -> Result<Reply<Switched>, ServiceError> {
    let (row, progress) = service::set_started(&app, &caller, id, started).await?;
    let standing = service::standing(&row);
    let done = match (started, standing.is_running) {
        (true, true) => "the network configuration is in force",
        (true, false) => "the network configuration is started: read it to see how it fares",
        (false, _) => "the network configuration is stopped: what the firewall lets pass leaves directly",
    };
    let data = Switched {
        container_id: id.to_string(),
        status: standing.status,
        is_running: standing.is_running,
        last_check: standing.checked_at.map(rfc3339),
    };
    Ok(Reply::ok(data, written(progress, done)))
}
