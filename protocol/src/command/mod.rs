//! Commands on a server itself: what the control plane asks, what the node answers while one runs, and how it
//! ended. What a command may consist of is in [`schema`] and [`template`], those that every node knows in
//! [`built_in`].
//!
//! One stream carries a command: [`CommandRequest`], then any number of [`CommandUpdate`] from the node and of
//! [`CommandControl`] from the control plane. A stream that broke is opened again with the same request, which
//! names how much of the output has arrived; the command itself notices nothing.

pub mod built_in;
pub mod schema;
pub mod template;

use crate::{
    bounded::{List, Map, Text},
    container::Cause,
    id::ExecutionId,
    time::UnixMs,
};
use schema::Value;
use serde::{Deserialize, Serialize};

/// Bytes of output that are kept of one execution, of both streams together.
pub const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// Pieces that the output of one execution is kept in.
pub const MAX_CHUNKS: u32 = 4096;
/// Bytes of one piece of output.
pub const MAX_CHUNK_BYTES: usize = 8 << 10;
/// Parts of a command line.
pub const MAX_ARGUMENTS: usize = 64;
/// Bytes of one part of a command line.
pub const MAX_ARGUMENT_BYTES: usize = 1024;
/// Parameters of one command.
pub const MAX_PARAMETERS: usize = 32;
/// The longest time that a command may be given, seconds.
pub const MAX_TIMEOUT_S: u64 = 7200;
/// Commands that a node runs at once; the control plane sends no more.
pub const MAX_RUNNING: usize = 4;

/// Values of a command's parameters, by name.
pub type Parameters = Map<Text<64>, Value, MAX_PARAMETERS>;

/// Asks the node to run a command, or, where it was asked before, how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRequest {
    /// Identity: the same id is never run twice.
    pub id: ExecutionId,
    /// What to run.
    pub order: Order,
    /// Milliseconds that it may run before it is ended.
    pub timeout_ms: u64,
    /// Milliseconds from its receipt within which it must begin; afterwards it is refused. A duration, because
    /// clocks differ.
    pub begin_within_ms: u64,
    /// Index of the first piece of output that has not arrived.
    pub from: u32,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A command that the node knows itself: only its name and parameters travel.
    BuiltIn {
        /// Its name.
        slug: Text<64>,
        /// Values of its parameters.
        parameters: Parameters,
    },
    /// A command that an operator made: its whole command line, without a shell.
    Custom {
        /// Its name, for the log.
        slug: Text<64>,
        /// The program, an absolute path, and its arguments.
        argv: List<Text<MAX_ARGUMENT_BYTES>, MAX_ARGUMENTS>,
        /// As whom.
        account: Account,
        /// An absolute path; empty: `/`.
        working_directory: Text<256>,
    },
}

impl Order {
    /// The command's name.
    pub fn slug(&self) -> &str {
        match self {
            Self::BuiltIn { slug, .. } | Self::Custom { slug, .. } => slug,
        }
    }
}

/// As whom a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Account {
    /// `nobody`, without groups and capabilities.
    Nobody,
    /// `root`, within what the agent itself may do.
    Root,
}

impl Account {
    /// The lowercase word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Root => "root",
        }
    }
}

/// What the control plane says on a command's stream after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandControl {
    /// End it.
    Cancel,
    /// Output and outcome are stored: the node need not keep them.
    Stored,
}

/// What the node says on a command's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandUpdate {
    /// Persisted: it will run, or be told as interrupted.
    Accepted,
    /// The next piece of output.
    Output(OutputChunk),
    /// It is over, and all of its output was sent.
    Ended(CommandOutcome),
    /// Not accepted; nothing ran and nothing will.
    Refused(Cause),
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputChunk {
    /// Counted from 0 over both streams.
    pub index: u32,
    /// Where the program wrote it.
    pub stream: OutputStream,
    /// What it wrote; bytes that are no UTF-8 are replaced.
    pub text: Text<MAX_CHUNK_BYTES>,
}

/// Where a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// The lowercase word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutcome {
    /// The execution.
    pub id: ExecutionId,
    /// How.
    pub ending: Ending,
    /// Exit code, or 128 and the number of the signal that ended it; `None` where it did not end by itself.
    pub exit_code: Option<i32>,
    /// True where there was more output than is kept.
    pub truncated: bool,
    /// When the program was started, the node's clock; `None` where it was not.
    pub started_at: Option<UnixMs>,
    /// When it was over, the node's clock.
    pub ended_at: UnixMs,
    /// Which limit of the node it reached, where it did; earlier agents have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// How a command came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The program ended by itself.
    Exited,
    /// Its time was over.
    TimedOut,
    /// Somebody asked for it.
    Cancelled,
    /// The agent or the server went down while it ran.
    Interrupted,
    /// It could not be started.
    Failed(Cause),
}
