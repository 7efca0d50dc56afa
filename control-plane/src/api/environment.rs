//! `/containers/{id}/env`.

use super::{
    caller::Caller,
    containers::written,
    envelope::{Failure, Reply, Success},
    json::Json,
    path::{Id, Ids},
};
use crate::{
    app::App,
    error::ServiceError,
    service::{container::Progress, environment as service},
    store::container::ContainerRow,
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, set_all)).routes(routes!(set, remove))
}

#[derive(Debug, Serialize, ToSchema)]
struct Environment {
    environment_vars: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChangedEnvironment {
    environment_vars: BTreeMap<String, String>,
    /// The server has the variables; the container's next start gets them.
    synced: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = EnvironmentSetInput)]
struct SetInput {
    /// The value, a text.
    #[schema(value_type = String, max_length = 32768)]
    value: Value,
}

fn variables(row: &ContainerRow) -> BTreeMap<String, String> {
    row.spec.env.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn changed((row, progress): (ContainerRow, Progress)) -> Reply<ChangedEnvironment> {
    let data = ChangedEnvironment { environment_vars: variables(&row), synced: progress == Progress::Answered };
    Reply::ok(data, written(progress, "environment changed: it takes effect at the next start"))
}

/// List environment variables
#[utoipa::path(get, path = "/api/v1/containers/{id}/env", operation_id = "env.list", tag = "env",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Environment>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<Environment>, ServiceError> {
    let row = service::list(&app, &caller, id).await?;
    Ok(Reply::ok(Environment { environment_vars: variables(&row) }, "here are the environment variables"))
}

/// Set several environment variables; the others stay
#[utoipa::path(put, path = "/api/v1/containers/{id}/env", operation_id = "env.bulkSet", tag = "env",
    params(("id" = String, Path)), request_body = BTreeMap<String, String>,
    responses((status = 200, body = Success<ChangedEnvironment>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn set_all(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(variables): Json<BTreeMap<String, Value>>,
) -> Result<Reply<ChangedEnvironment>, ServiceError> {
    Ok(changed(service::set_all(&app, &caller, id, variables).await?))
}

/// Set one environment variable
#[utoipa::path(put, path = "/api/v1/containers/{id}/env/{key}", operation_id = "env.set", tag = "env",
    params(("id" = String, Path), ("key" = String, Path)), request_body = SetInput,
    responses((status = 200, body = Success<ChangedEnvironment>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn set(
    State(app): State<App>,
    caller: Caller,
    Ids(id, key): Ids<ContainerId, String>,
    Json(input): Json<SetInput>,
) -> Result<Reply<ChangedEnvironment>, ServiceError> {
    Ok(changed(service::set(&app, &caller, id, &key, &input.value).await?))
}

/// Remove one environment variable
#[utoipa::path(delete, path = "/api/v1/containers/{id}/env/{key}", operation_id = "env.delete", tag = "env",
    params(("id" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Success<ChangedEnvironment>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Ids(id, key): Ids<ContainerId, String>,
) -> Result<Reply<ChangedEnvironment>, ServiceError> {
    Ok(changed(service::remove(&app, &caller, id, &key).await?))
}
