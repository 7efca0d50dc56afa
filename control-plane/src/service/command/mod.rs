//! Commands on servers: the catalogue, running them, and what was run. The owner of a server and operators may;
//! members of its pool may not, for a command reaches beyond their containers.

pub mod catalogue;
mod confirm;
pub mod execute;
mod limits;

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    page::Page,
    store::{
        StoreError,
        command::{
            self as store, Command,
            execution::{self, Execution},
            output::{self, Piece},
        },
        server::{self, Server},
    },
};
use hoody_protocol::{
    id::{ExecutionId, ServerId},
    time::now_ms,
};

const EXECUTION: &str = "command execution";

/// The server, where the caller may run commands on it.
pub(super) async fn authorise(app: &App, caller: &Caller, id: ServerId) -> Result<Server, ServiceError> {
    let not_found = || ServiceError::NotFound("server");
    if caller.is_admin {
        return server::by_id(&app.store, id).await?.ok_or_else(not_found);
    }
    let server = server::usable(&app.store, id, caller.user).await?.ok_or_else(not_found)?;
    if server.owner == Some(caller.user) {
        return Ok(server);
    }
    Err(ServiceError::Forbidden("only who rents the server may run commands on it: ask them".to_owned()))
}

/// The server, and the commands that can be run on it; an empty text stands for any.
pub async fn available(
    app: &App,
    caller: &Caller,
    id: ServerId,
    category: &str,
    risk: &str,
) -> Result<(Server, Vec<Command>), ServiceError> {
    let server = authorise(app, caller, id).await?;
    Ok((server, store::available(&app.store, category, risk).await?))
}

/// One page of what was run on a server, newest first, and how many there are.
pub async fn list(
    app: &App,
    caller: &Caller,
    server: ServerId,
    state: Option<&str>,
    page: Page,
) -> Result<(Vec<Execution>, u64), ServiceError> {
    let state = match state {
        Some("running") => "dispatched",
        other => other.unwrap_or_default(),
    };
    if !state.is_empty() && !execution::STATES.contains(&state) {
        let words = execution::STATES.join(", ").replace("dispatched", "running");
        return Err(ServiceError::invalid("status", format!("must be one of {words}")));
    }
    authorise(app, caller, server).await?;
    Ok(execution::list(&app.store, server, state, page).await?)
}

/// One execution.
pub async fn get(app: &App, caller: &Caller, server: ServerId, id: ExecutionId) -> Result<Execution, ServiceError> {
    authorise(app, caller, server).await?;
    read(app, server, id).await
}

/// One execution, expired where its time to begin has passed.
pub(super) async fn read(app: &App, server: ServerId, id: ExecutionId) -> Result<Execution, ServiceError> {
    let find = || async { execution::get(&app.store, server, id).await?.ok_or(ServiceError::NotFound(EXECUTION)) };
    let found = find().await?;
    let now = now_ms() as i64;
    if found.state != "pending" || found.begin_before > now {
        return Ok(found);
    }
    execution::expire(&app.store, now).await?;
    app.nodes.executions.announce(id);
    find().await
}

/// All that it has written so far.
pub async fn output(app: &App, id: ExecutionId) -> Result<String, ServiceError> {
    Ok(pieces(app, id, 0).await?.into_iter().map(|piece| piece.content).collect())
}

/// What it has written from the piece at `position` on.
pub async fn pieces(app: &App, id: ExecutionId, position: i64) -> Result<Vec<Piece>, ServiceError> {
    Ok(output::from(&app.store, id, position).await?)
}

/// Asks for the end of an execution; gives it as it is then.
pub async fn cancel(app: &App, caller: &Caller, server: ServerId, id: ExecutionId) -> Result<Execution, ServiceError> {
    let found = get(app, caller, server, id).await?;
    let mut tx = app.store.begin().await?;
    let asked = execution::cancel(&mut tx, server, id, now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    if !asked {
        return Err(ServiceError::Conflict(format!("the command {} is over already", found.slug)));
    }
    app.nodes.executions.announce(id);
    app.nodes.wake(server);
    read(app, server, id).await
}
