//! `/admin/servers/{id}/unknown-containers`: what a node holds and the control plane does not know, after a
//! restore for example, to be adopted or removed.

use super::Admin;
use crate::{
    api::{
        envelope::{Failure, Reply, Success},
        json::Json,
        pagination::{Page, Pagination},
        path::{Id, Ids},
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::server::unknown as service,
    store::unknown::{Decision, Unknown},
};
use axum::extract::State;
use hoody_protocol::id::{ContainerId, ProjectId, ServerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(adopt)).routes(routes!(remove))
}

/// A container that its node holds and nobody here knows.
#[derive(Debug, Serialize, ToSchema)]
struct UnknownData {
    id: String,
    /// Epoch and generation of the specification that the node holds.
    version: String,
    /// Its state in the node's last hello.
    state: String,
    first_seen_at: String,
    /// `adopt` or `remove`, until it is carried out.
    decision: Option<String>,
    /// Why the last decision could not be carried out.
    problem: Option<String>,
}

impl From<Unknown> for UnknownData {
    fn from(row: Unknown) -> Self {
        let decision = row.decision.map(|decision| match decision {
            Decision::Adopt { .. } => "adopt".to_owned(),
            Decision::Remove => "remove".to_owned(),
        });
        Self {
            id: row.container.to_string(),
            version: row.version.to_string(),
            state: row.state,
            first_seen_at: rfc3339(row.first_seen_at),
            decision,
            problem: row.problem,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct UnknownList {
    containers: Vec<UnknownData>,
    pagination: Pagination,
}

#[derive(Debug, Deserialize, ToSchema)]
struct AdoptInput {
    /// The project that it becomes a container of.
    #[schema(value_type = String)]
    project_id: ProjectId,
    /// Its name; without one, its id.
    #[schema(min_length = 3, max_length = 100)]
    name: Option<String>,
}

/// List containers that only the node knows
#[utoipa::path(get, path = "/api/v1/admin/servers/{id}/unknown-containers",
    operation_id = "admin.servers.listUnknownContainers", tag = "admin", params(("id" = String, Path), Page),
    responses((status = 200, body = Success<UnknownList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn list(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<ServerId>,
    page: Page,
) -> Result<Reply<UnknownList>, ServiceError> {
    let (rows, total) = service::list(&app, id, page).await?;
    let pagination = page.of(total);
    Ok(Reply::list(UnknownList { containers: rows.into_iter().map(Into::into).collect(), pagination }, pagination))
}

/// Take a container that only the node knows into a project
///
/// Done when the node is linked; `problem` in the list says why where it could not be done.
#[utoipa::path(post, path = "/api/v1/admin/servers/{id}/unknown-containers/{container}/adopt",
    operation_id = "admin.servers.adoptUnknownContainer", tag = "admin",
    params(("id" = String, Path), ("container" = String, Path)), request_body = AdoptInput,
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn adopt(
    State(app): State<App>,
    _admin: Admin,
    Ids(id, container): Ids<ServerId, ContainerId>,
    Json(input): Json<AdoptInput>,
) -> Result<Reply<()>, ServiceError> {
    service::adopt(&app, id, container, input.project_id, input.name).await?;
    Ok(Reply::ok((), "the container is adopted as soon as its server is linked"))
}

/// Delete a container that only the node knows
///
/// Done when the node is linked.
#[utoipa::path(delete, path = "/api/v1/admin/servers/{id}/unknown-containers/{container}",
    operation_id = "admin.servers.removeUnknownContainer", tag = "admin",
    params(("id" = String, Path), ("container" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn remove(
    State(app): State<App>,
    _admin: Admin,
    Ids(id, container): Ids<ServerId, ContainerId>,
) -> Result<Reply<()>, ServiceError> {
    service::remove(&app, id, container).await?;
    Ok(Reply::ok((), "the container is removed as soon as its server is linked"))
}
