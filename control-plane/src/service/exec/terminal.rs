//! Terminals: opened on the node, connected to and left by clients, listed and ended. The node has them; nothing of
//! them is stored here, so they do not notice a restart of the control plane.

use super::{
    CommandInput, broken, check_reachable, check_running,
    command::all_right,
    conversations::{Conversation, Kind},
    find, not_opened, record, refused,
};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    nodes::remote::{OpenError, RemoteError, RemoteInput, RemoteProcess},
    store::container::ContainerRow,
};
use hoody_protocol::{
    exec::{
        Connect, ProcessOutput, TerminalEnd, TerminalInfo, TerminalList, TerminalQuery, TerminalRequest, TerminalSize,
    },
    id::{ContainerId, TerminalId, UserId},
    link::CommandReply,
    stream::{AskError, StreamError},
    tag::Message,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// The time the node has to open a terminal, or to answer a question.
const NODE_DEADLINE: Duration = Duration::from_secs(20);
/// Columns and rows of the largest terminal.
const MAX_SIZE: u16 = 1000;

/// Which terminal, and what it looks like.
#[derive(Debug, Clone)]
pub struct TerminalInput {
    /// What runs at a new one.
    pub command: CommandInput,
    /// One that is there, and the position behind the last byte that was seen of it.
    pub existing: Option<(TerminalId, Option<u64>)>,
    /// Its size.
    pub size: TerminalSize,
}

/// Somebody who is connected.
#[derive(Debug)]
pub struct Connected {
    /// The terminal.
    pub id: TerminalId,
    /// Position of the first byte that follows.
    pub position: u64,
    /// Bytes of input that it has taken so far.
    pub input: u64,
    /// What it shows.
    pub process: RemoteProcess,
    /// What is typed.
    pub keyboard: RemoteInput,
    /// The caller's place.
    pub place: Conversation,
}

/// The container's owner, where the caller may still be connected to terminals of it.
pub async fn still_may(app: &App, caller: &Caller, id: ContainerId) -> Result<UserId, ServiceError> {
    find(app, caller, id, Level::Edit).await.map(|row| row.spec.owner)
}

/// True where the numbers are the size of a terminal.
pub(super) fn is_size(size: TerminalSize) -> bool {
    (1..=MAX_SIZE).contains(&size.columns) && (1..=MAX_SIZE).contains(&size.rows)
}

/// Opens a terminal, or connects to one that the caller has opened.
pub async fn connect(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: TerminalInput,
) -> Result<Connected, ServiceError> {
    let row = find(app, caller, id, Level::Edit).await?;
    let mut problems = BTreeMap::new();
    if !is_size(input.size) {
        problems.insert("columns, rows".to_owned(), format!("must be from 1 to {MAX_SIZE}"));
    }
    let argv = input.command.argv.clone();
    let how = match input.existing {
        Some((_, after)) => Some(Connect::Again { after }),
        None => input.command.check(&mut problems).map(Connect::New),
    };
    all_right(problems)?;
    let Some(how) = how else { return Err(ServiceError::invalid("argv", "cannot be run")) };
    if input.existing.is_none() {
        check_running(&row)?;
    }
    check_reachable(app, &row).await?;
    let place = app.conversations.begin(caller.user, Kind::Terminal)?;
    let (terminal, action, command) = match input.existing {
        Some((terminal, _)) => (terminal, "container.terminal_connected", None),
        None => (TerminalId::generate(), "container.terminal_opened", Some(argv.as_slice())),
    };
    record(app, caller, &row, action, command).await?;
    let request = TerminalRequest { terminal, container: id, user: caller.user, size: input.size, how };
    let stream = app.nodes.open(row.server, &request).await.map_err(|error| not_opened(&row, error))?;
    let (mut process, keyboard) = stream.into_process();
    let first = timeout(NODE_DEADLINE, process.next()).await.map_err(|_elapsed| ServiceError::NodeTimeout)?;
    match first.map_err(|error| broken(&row, error))? {
        ProcessOutput::Connected { position, input } => {
            Ok(Connected { id: terminal, position, input, process, keyboard, place })
        }
        ProcessOutput::Failed(cause) => Err(refused(cause)),
        _ => Err(broken(&row, RemoteError::Broken(StreamError::Finished))),
    }
}

/// The terminals of the container, of all who may use it.
pub async fn list(app: &App, caller: &Caller, id: ContainerId) -> Result<Vec<TerminalInfo>, ServiceError> {
    let row = find(app, caller, id, Level::Edit).await?;
    check_reachable(app, &row).await?;
    let list: TerminalList = ask(app, &row, &TerminalQuery { container: id }).await?;
    Ok(list.terminals.into_inner())
}

/// Ends a terminal with all that runs at it.
pub async fn end(app: &App, caller: &Caller, id: ContainerId, terminal: TerminalId) -> Result<(), ServiceError> {
    let row = find(app, caller, id, Level::Edit).await?;
    check_reachable(app, &row).await?;
    match ask(app, &row, &TerminalEnd { container: id, terminal }).await? {
        CommandReply::Accepted => record(app, caller, &row, "container.terminal_ended", None).await,
        CommandReply::Refused(cause) => Err(refused(cause)),
        CommandReply::Superseded { .. } | CommandReply::Done(_) => Err(ServiceError::NodeTimeout),
    }
}

async fn ask<Q: Message, A: Message>(app: &App, row: &ContainerRow, question: &Q) -> Result<A, ServiceError> {
    match app.nodes.ask(row.server, question, NODE_DEADLINE).await {
        Ok(answer) => Ok(answer),
        Err(None) => Err(not_opened(row, OpenError::NotLinked)),
        Err(Some(AskError::Deadline)) => Err(ServiceError::NodeTimeout),
        Err(Some(AskError::Refused(cause))) => Err(broken(row, RemoteError::Refused(cause))),
        Err(Some(AskError::Connection(error))) => {
            Err(not_opened(row, OpenError::Broken(StreamError::Read(error.into()))))
        }
        Err(Some(AskError::Stream(error))) => Err(not_opened(row, OpenError::Broken(error))),
    }
}
