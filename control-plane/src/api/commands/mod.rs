//! `/servers/{id}/available-commands`, `/execute-command` and `/command-executions`: commands on servers.

mod data;
mod stream;

pub(super) use data::CommandData;

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::Json,
    pagination::{self, Page, Pagination},
    path::{Id, Ids},
    query::Query,
};
use crate::{
    app::App,
    error::ServiceError,
    service::command::{self as service, execute},
};
use axum::extract::State;
use data::{CommandList, ExecuteInput, ExecutionData, ExecutionList};
use hoody_protocol::{
    command::built_in::Risk,
    id::{ExecutionId, ServerId},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(available))
        .routes(routes!(run))
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(cancel))
        .routes(routes!(stream::follow))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Narrowed {
    /// Only commands of this category.
    category: Option<String>,
    /// Only commands of this risk: `low`, `medium`, `high` or `critical`.
    risk_level: Option<String>,
}

/// The commands that can be run on a server
#[utoipa::path(get, path = "/api/v1/servers/{id}/available-commands", operation_id = "serverCommands.list",
    tag = "serverCommands", params(("id" = String, Path), Narrowed),
    responses((status = 200, body = Success<CommandList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn available(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ServerId>,
    Query(narrowed): Query<Narrowed>,
) -> Result<Reply<CommandList>, ServiceError> {
    let risk = narrowed.risk_level.unwrap_or_default();
    if !risk.is_empty() && Risk::ALL.iter().all(|known| known.as_str() != risk) {
        return Err(ServiceError::invalid("risk_level", "must be low, medium, high or critical"));
    }
    let category = narrowed.category.unwrap_or_default();
    let (server, commands) = service::available(&app, &caller, id, &category, &risk).await?;
    Ok(Reply::ok(
        CommandList::new(&server, commands),
        "these commands can be run, if the server's own policy allows them",
    ))
}

/// Run a command on a server
///
/// The answer comes at once, or with `wait` when the command is over, at most shortly before the request's own
/// deadline; it goes on then. A command that must be confirmed is answered with 409, code
/// `CONFIRMATION_REQUIRED`, and a `confirmation_token` in `details`, good for the same request within 5 minutes.
#[utoipa::path(post, path = "/api/v1/servers/{id}/execute-command", operation_id = "serverCommands.execute",
    tag = "serverCommands", params(("id" = String, Path)), request_body = ExecuteInput,
    responses((status = 200, body = Success<ExecutionData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure), (status = 429, body = Failure), (status = 502, body = Failure),
        (status = 503, body = Failure), (status = 504, body = Failure)))]
async fn run(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ServerId>,
    Json(input): Json<ExecuteInput>,
) -> Result<Reply<ExecutionData>, ServiceError> {
    let execution = execute::execute(&app, &caller, id, input.into()).await?;
    let message = if execution.is_over() { "the command is over" } else { "the command was accepted" };
    let output = service::output(&app, execution.id).await?;
    Ok(Reply::ok(ExecutionData::new(execution, Some(output)), message))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Status {
    /// Only executions with this status.
    status: Option<String>,
}

/// What was run on a server, newest first
#[utoipa::path(get, path = "/api/v1/servers/{id}/command-executions", operation_id = "serverCommands.listExecutions",
    tag = "serverCommands", params(("id" = String, Path), Page, Status),
    responses((status = 200, body = Success<ExecutionList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ServerId>,
    page: Result<Page, ServiceError>,
    narrowed: Result<Query<Status>, ServiceError>,
) -> Result<Reply<ExecutionList>, ServiceError> {
    let (page, (), Query(narrowed)) = pagination::together(page, Ok(()), narrowed)?;
    let (executions, total) = service::list(&app, &caller, id, narrowed.status.as_deref(), page).await?;
    let pagination: Pagination = page.of(total);
    let executions = executions.into_iter().map(|execution| ExecutionData::new(execution, None)).collect();
    Ok(Reply::list(ExecutionList { executions, pagination }, pagination))
}

/// One execution with all of its output
#[utoipa::path(get, path = "/api/v1/servers/{id}/command-executions/{execution}",
    operation_id = "serverCommands.getExecution", tag = "serverCommands",
    params(("id" = String, Path), ("execution" = String, Path)),
    responses((status = 200, body = Success<ExecutionData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Ids(server, id): Ids<ServerId, ExecutionId>,
) -> Result<Reply<ExecutionData>, ServiceError> {
    let execution = service::get(&app, &caller, server, id).await?;
    let output = service::output(&app, id).await?;
    Ok(Reply::ok(ExecutionData::new(execution, Some(output)), "here is the execution"))
}

/// End an execution
///
/// Its processes are asked to end, and killed after 5 seconds. Its status tells when that is done.
#[utoipa::path(post, path = "/api/v1/servers/{id}/command-executions/{execution}/cancel",
    operation_id = "serverCommands.cancelExecution", tag = "serverCommands",
    params(("id" = String, Path), ("execution" = String, Path)),
    responses((status = 200, body = Success<ExecutionData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Ids(server, id): Ids<ServerId, ExecutionId>,
) -> Result<Reply<ExecutionData>, ServiceError> {
    let execution = service::cancel(&app, &caller, server, id).await?;
    Ok(Reply::ok(ExecutionData::new(execution, None), "the command is asked to end"))
}
