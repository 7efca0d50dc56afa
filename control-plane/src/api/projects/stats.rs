//! `/projects/{id}/stats`.

use crate::{
    api::{
        caller::Caller,
        containers::Stats,
        envelope::{Failure, Reply, Success},
        path::Id,
    },
    app::App,
    error::ServiceError,
    service::project_stats as service,
};
use axum::extract::State;
use hoody_protocol::id::ProjectId;
use serde::Serialize;
use std::time::Instant;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
struct Summary {
    project_id: String,
    project_name: String,
    container_count: usize,
    /// How long this answer took to make.
    total_processing_time: String,
    /// Names of servers that did not answer: their containers are listed without measurements.
    unanswered_servers: Vec<String>,
}

/// What a project's containers use.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProjectStatsData {
    stats: Vec<Stats>,
    summary: Summary,
}

/// Get the resource use of a project's containers
#[utoipa::path(get, path = "/api/v1/projects/{id}/stats", operation_id = "projects.getStats", tag = "projects",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<ProjectStatsData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn stats(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
) -> Result<Reply<ProjectStatsData>, ServiceError> {
    let begun = Instant::now();
    let found = service::stats(&app, &caller, id).await?;
    let stats: Vec<_> = found.containers.into_iter().map(|(row, measured)| Stats::new(row, measured, begun)).collect();
    let message = match found.unanswered.len() {
        0 => "here is what the project's containers use".to_owned(),
        servers => format!("{servers} servers did not answer: see summary.unanswered_servers"),
    };
    let summary = Summary {
        project_id: id.to_string(),
        project_name: found.project.alias,
        container_count: stats.len(),
        total_processing_time: format!("{:.3}ms", begun.elapsed().as_secs_f64() * 1000.0),
        unanswered_servers: found.unanswered.into_iter().collect(),
    };
    Ok(Reply::ok(ProjectStatsData { stats, summary }, message))
}
