//! `/admin/operations`: operations of every tenant.

use super::Admin;
use crate::{
    api::{
        envelope::{Failure, Reply, Success},
        pagination::{self, Page, Pagination},
        path::Id,
        query::Query,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::operation_list as service,
    store::operation_list::Operation,
};
use axum::extract::State;
use hoody_protocol::id::{ContainerId, OperationId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// An operation on a container.
#[derive(Debug, Serialize, ToSchema)]
struct OperationData {
    id: String,
    container_id: String,
    server_id: String,
    user_id: String,
    /// Position in the container's one order of specifications and operations.
    sequence: i64,
    #[schema(value_type = Object)]
    kind: serde_json::Value,
    /// `pending`, `dispatched`, `succeeded`, `failed` or `expired`.
    state: String,
    /// Why it failed or expired: `code` and `message`.
    #[schema(value_type = Option<Object>)]
    failure: Option<serde_json::Value>,
    created_at: String,
    /// Not begun by then: never runs.
    begin_before: String,
    finished_at: Option<String>,
}

impl From<Operation> for OperationData {
    fn from(operation: Operation) -> Self {
        Self {
            id: operation.id,
            container_id: operation.container_id,
            server_id: operation.server_id,
            user_id: operation.user_id,
            sequence: operation.sequence,
            kind: operation.kind,
            state: operation.state,
            failure: operation.failure,
            created_at: rfc3339(operation.created_at),
            begin_before: rfc3339(operation.begin_before),
            finished_at: operation.finished_at.map(rfc3339),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct OperationList {
    operations: Vec<OperationData>,
    pagination: Pagination,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only operations of this container.
    #[param(value_type = Option<String>)]
    container_id: Option<ContainerId>,
    /// Only operations in this state.
    state: Option<String>,
}

/// List operations, newest first
#[utoipa::path(get, path = "/api/v1/admin/operations", operation_id = "admin.operations.list", tag = "admin",
    params(Page, Filter),
    responses((status = 200, body = Success<OperationList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn list(
    State(app): State<App>,
    _admin: Admin,
    page: Result<Page, ServiceError>,
    filter: Result<Query<Filter>, ServiceError>,
) -> Result<Reply<OperationList>, ServiceError> {
    let (page, (), Query(filter)) = pagination::together(page, Ok(()), filter)?;
    let (operations, total) = service::list(&app, filter.container_id, filter.state.as_deref(), page).await?;
    let pagination = page.of(total);
    let operations = operations.into_iter().map(OperationData::from).collect();
    Ok(Reply::list(OperationList { operations, pagination }, pagination))
}

/// Get an operation
#[utoipa::path(get, path = "/api/v1/admin/operations/{id}", operation_id = "admin.operations.get", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<OperationData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn get(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<OperationId>,
) -> Result<Reply<OperationData>, ServiceError> {
    Ok(Reply::ok(service::get(&app, id).await?.into(), "here is the operation"))
}
