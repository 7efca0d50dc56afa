//! The history of a container's status.

use super::list::slice;
use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        pagination::{self, Order, Page, Pagination, Sort},
        path::Id,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::container as service,
    store::status_log::StatusLogRow,
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

const SORTABLE: &[&str] = &["transition_time", "created_at", "to_status", "from_status"];

/// One change of status.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusLog {
    id: String,
    container_id: String,
    from_status: Option<String>,
    to_status: String,
    /// user, node, scheduler or system.
    triggered_by: String,
    /// Cause, exit code and the like.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// How long the status before lasted.
    duration_ms: Option<i64>,
    transition_time: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusLogs {
    logs: Vec<StatusLog>,
    pagination: Pagination,
}

/// List a container's status changes
#[utoipa::path(get, path = "/api/v1/containers/{id}/status-logs", operation_id = "containers.getStatusLogs", tag = "containers",
    params(("id" = String, Path), Page,
        ("sort_by" = Option<String>, Query, description = "transition_time, created_at, to_status or from_status"),
        ("sort_order" = Option<String>, Query, description = "asc or desc")),
    responses((status = 200, body = Success<StatusLogs>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
pub(super) async fn status_logs(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    page: Result<Page, ServiceError>,
    sort: Sort,
) -> Result<Reply<StatusLogs>, ServiceError> {
    let order = sort.among(SORTABLE, Order { by: "transition_time", descending: true });
    let (page, order, ()) = pagination::together(page, order, Ok(()))?;
    let mut slice = slice(page, order);
    if slice.by == "created_at" {
        // A row is written when the change is stored, and is named after the change itself.
        slice.by = "transition_time";
    }
    let (rows, total) = service::status_logs(&app, &caller, id, slice).await?;
    let pagination = page.of(total);
    Ok(Reply::list(StatusLogs { logs: rows.into_iter().map(StatusLog::from).collect(), pagination }, pagination))
}

impl From<StatusLogRow> for StatusLog {
    fn from(row: StatusLogRow) -> Self {
        Self {
            id: row.id.to_string(),
            container_id: row.container.to_string(),
            from_status: row.from_status,
            to_status: row.to_status,
            triggered_by: row.triggered_by,
            metadata: row.metadata,
            duration_ms: row.duration_ms,
            transition_time: rfc3339(row.transition_time),
        }
    }
}
