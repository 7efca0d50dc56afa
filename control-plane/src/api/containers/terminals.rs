//! The terminals of a container: listed and ended.

use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        path::{Id, Ids},
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::exec as service,
};
use axum::extract::State;
use hoody_protocol::{
    exec::TerminalInfo,
    id::{ContainerId, TerminalId},
};
use serde::Serialize;
use utoipa::ToSchema;

/// A terminal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContainerTerminal {
    id: String,
    container_id: String,
    /// Who opened it, and alone can connect to it.
    user_id: String,
    /// The program, without its arguments.
    program: String,
    /// Somebody is connected.
    connected: bool,
    columns: u16,
    rows: u16,
    /// Bytes that it has shown.
    position: u64,
    opened_at: String,
    /// When something was typed or shown last.
    active_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContainerTerminals {
    terminals: Vec<ContainerTerminal>,
}

/// List the terminals of a container
#[utoipa::path(get, path = "/api/v1/containers/{id}/terminals", operation_id = "containers.listTerminals",
    tag = "containers", params(("id" = String, Path)),
    responses((status = 200, body = Success<ContainerTerminals>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 421, body = Failure),
        (status = 501, body = Failure), (status = 503, body = Failure), (status = 504, body = Failure)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<ContainerTerminals>, ServiceError> {
    let terminals = service::list(&app, &caller, id).await?;
    let terminals = terminals.into_iter().map(|info| ContainerTerminal::new(id, info)).collect();
    Ok(Reply::ok(ContainerTerminals { terminals }, "here are the terminals of the container"))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EndedTerminal {
    id: String,
}

/// End a terminal with everything that runs at it
#[utoipa::path(delete, path = "/api/v1/containers/{id}/terminals/{terminalId}", operation_id = "containers.endTerminal",
    tag = "containers", params(("id" = String, Path), ("terminalId" = String, Path)),
    responses((status = 200, body = Success<EndedTerminal>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 421, body = Failure),
        (status = 501, body = Failure), (status = 503, body = Failure), (status = 504, body = Failure)))]
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    Ids(id, terminal): Ids<ContainerId, TerminalId>,
) -> Result<Reply<EndedTerminal>, ServiceError> {
    service::end(&app, &caller, id, terminal).await?;
    Ok(Reply::ok(EndedTerminal { id: terminal.to_string() }, "the terminal was ended"))
}

impl ContainerTerminal {
    fn new(container: ContainerId, info: TerminalInfo) -> Self {
        Self {
            id: info.id.to_string(),
            container_id: container.to_string(),
            user_id: info.user.to_string(),
            program: info.program.as_str().to_owned(),
            connected: info.connected,
            columns: info.size.columns,
            rows: info.size.rows,
            position: info.position,
            opened_at: rfc3339(info.opened_at as i64),
            active_at: rfc3339(info.active_at as i64),
        }
    }
}
