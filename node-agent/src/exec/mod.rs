//! Processes that clients start in running containers, over [`crate::runtime::Attend`]: once, with bounded output
//! ([`once`]), or at terminals ([`terminal`]) that are kept while nobody is connected. All of them end with the agent.
//!
//! The link turns a stream into a [`Peer`] and back; nothing here knows of QUIC.

mod limits;
mod once;
mod peer;
mod ring;
mod terminal;
mod terminals;

pub use limits::{ExecLimits, TooMany};
pub use once::run as run_once;
pub use peer::{Input, Peer};
pub use terminals::connect;

use crate::runtime::{Attend, ExecRequest, RuntimeError};
use hoody_protocol::{
    container::Cause,
    exec::{Command, TerminalInfo},
    id::{ContainerId, TerminalId},
};
use limits::Slots;
use std::sync::Arc;
use terminals::Terminals;

/// All processes that clients started. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Execs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    attend: Arc<dyn Attend>,
    limits: ExecLimits,
    slots: Slots,
    terminals: Terminals,
}

impl Execs {
    /// None yet.
    pub fn new(attend: Arc<dyn Attend>, limits: ExecLimits) -> Self {
        let slots = Slots::new(&limits);
        Self(Arc::new(Shared { attend, limits, slots, terminals: Terminals::default() }))
    }

    /// The terminals of a container, oldest first.
    pub fn terminals(&self, container: ContainerId) -> Vec<TerminalInfo> {
        self.0.terminals.of(container)
    }

    /// Ends a terminal with all that runs at it; false where the container has none of this id.
    pub fn end_terminal(&self, container: ContainerId, id: TerminalId) -> bool {
        self.0.terminals.end(container, id)
    }
}

/// What the runtime is asked for.
fn request(command: Command) -> ExecRequest {
    ExecRequest {
        argv: command.argv.into_inner().into_iter().map(|text| text.as_str().to_owned()).collect(),
        env: command
            .env
            .into_inner()
            .into_iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
            .collect(),
        cwd: command.cwd.as_str().to_owned(),
        user: command.user.as_str().to_owned(),
        ..ExecRequest::default()
    }
}

/// What a client is told where a process could not be started; the rest is logged.
fn cause(container: ContainerId, error: &RuntimeError) -> Cause {
    match error {
        RuntimeError::State { state: "paused", .. } => Cause::new("paused", "the container is paused: resume it first"),
        RuntimeError::State { .. } => Cause::new("not_running", "the container does not run: start it first"),
        RuntimeError::Bundle { reason, .. } => Cause::new("invalid_command", reason.clone()),
        RuntimeError::Start { reason, .. } => Cause::new("cannot_start", reason.clone()),
        // Deleted, or its run ended, while this began.
        RuntimeError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Cause::new("not_running", "the container does not run: start it first")
        }
        other => {
            tracing::error!(%container, error = other as &dyn std::error::Error, "start a process");
            Cause::new("exec_failed", "the process could not be started")
        }
    }
}

fn too_many(_: TooMany) -> Cause {
    Cause::new("too_many", "too many processes or terminals run there already: end some, or try again later")
}
