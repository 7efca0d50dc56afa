//! Processes and terminals in containers. They are neither state nor operations: nothing of them is stored but that
//! they took place, and they end when nobody waits for them (a process) or when their node's agent ends (both).
//!
//! The request goes straight to the node, through the replica that has its link where this is another one.

mod command;
mod conversations;
mod once;
mod terminal;

pub use command::{CommandInput, MAX_ARGV_BYTES};
pub use conversations::{Conversation, Conversations, Kind};
pub use once::{ExecInput, ExecOutcome, Kept, LONGEST, MAX_OUTPUT_BYTES, run};
pub use terminal::{Connected, TerminalInput, connect, end, list, still_may};

use super::container::authorise;
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    event::{Actor, EventKind, NewEvent},
    nodes::{
        Reach,
        remote::{OpenError, RemoteError},
    },
    store::{
        StoreError,
        container::{self, ContainerRow, Status},
        event,
    },
};
use hoody_protocol::{container::Cause, id::ContainerId};

/// Characters of a program's name that are written down; never its arguments, which may hold secrets.
const MAX_PROGRAM_CHARS: usize = 64;

/// The container, if the caller may go as far with it.
pub(super) async fn find(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    needed: Level,
) -> Result<ContainerRow, ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, needed).await?;
    Ok(row)
}

/// Refuses where nothing can run in the container now. The node has the last word.
fn check_running(row: &ContainerRow) -> Result<(), ServiceError> {
    match row.status {
        Status::Running => Ok(()),
        Status::Paused => Err(ServiceError::Conflict("the container is paused: resume it first".to_owned())),
        status => Err(ServiceError::Conflict(format!("the container is {status}: start it first"))),
    }
}

/// Refuses where this process cannot reach the container's node.
pub(super) async fn check_reachable(app: &App, row: &ContainerRow) -> Result<(), ServiceError> {
    match app.nodes.reach(row.server, row.server_info.online).await? {
        Reach::Reached => Ok(()),
        Reach::Elsewhere => Err(ServiceError::Elsewhere(row.server_info.name.clone())),
        Reach::Offline => Err(offline(row)),
    }
}

pub(super) fn offline(row: &ContainerRow) -> ServiceError {
    ServiceError::Unavailable(format!("server {} is offline: try again when it is back", row.server_info.name))
}

/// Why the node was not asked, for the client.
pub(super) fn not_opened(row: &ContainerRow, error: OpenError) -> ServiceError {
    match error {
        OpenError::NotLinked => offline(row),
        OpenError::TooMany => ServiceError::RateLimited { retry_after_s: 1 },
        OpenError::Deadline => ServiceError::NodeTimeout,
        OpenError::Broken(error) => {
            tracing::info!(server = %row.server, error = &error as &dyn std::error::Error, "a link broke");
            offline(row)
        }
    }
}

/// Why the node broke off, for the client.
pub(super) fn broken(row: &ContainerRow, error: RemoteError) -> ServiceError {
    match error {
        RemoteError::Refused(cause) if matches!(cause.code.as_str(), "unexpected" | "malformed") => {
            ServiceError::NotImplemented(format!(
                "the agent of server {} is of a version that cannot do this: upgrade it",
                row.server_info.name
            ))
        }
        RemoteError::Refused(cause) => ServiceError::NodeFailed(cause),
        RemoteError::Broken(error) => {
            tracing::info!(server = %row.server, error = &error as &dyn std::error::Error, "a conversation broke");
            ServiceError::Unavailable(format!(
                "the connection to server {} broke: what was running has ended",
                row.server_info.name
            ))
        }
        RemoteError::Overrun(error) => ServiceError::internal(error),
    }
}

/// What the node said of a process that it did not start.
fn refused(cause: Cause) -> ServiceError {
    match cause.code.as_str() {
        "not_running" | "paused" | "exists" => ServiceError::Conflict(cause.message.to_string()),
        "too_many" => ServiceError::RateLimited { retry_after_s: 1 },
        "no_terminal" => ServiceError::NotFound("terminal"),
        "invalid_position" => ServiceError::invalid("after", cause.message.to_string()),
        "invalid_command" | "cannot_start" => ServiceError::Unprocessable {
            message: format!("the command could not be started: {}", cause.message),
            details: [("cause".to_owned(), cause.code.to_string())].into(),
        },
        _ => ServiceError::NodeFailed(cause),
    }
}

/// Writes down that somebody did something in the container, before it is done.
pub(super) async fn record(
    app: &App,
    caller: &Caller,
    row: &ContainerRow,
    action: &'static str,
    command: Option<&[String]>,
) -> Result<(), ServiceError> {
    let id = row.spec.id;
    let told = NewEvent::new(EventKind::ActivityLogged, id, Some(row.spec.owner), Actor::User(caller.user))
        .in_project(row.spec.project)
        .in_container(id)
        .in_realms(&row.realm_ids)
        .with("action", action);
    let told = match command {
        Some(argv) => {
            let program: String =
                argv.first().map(|program| program.chars().take(MAX_PROGRAM_CHARS).collect()).unwrap_or_default();
            told.with("program", program).with("arguments", argv.len().saturating_sub(1))
        }
        None => told,
    };
    let mut tx = app.store.begin().await?;
    // Events of one subject are in the order of their commits because its row is locked.
    container::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    event::insert(&mut tx, &told).await?;
    Ok(tx.commit().await.map_err(StoreError::from)?)
}
