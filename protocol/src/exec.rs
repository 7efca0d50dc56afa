//! Processes that somebody starts in a running container: once with a bounded answer, or at a terminal that is kept
//! while nobody is connected to it.
//!
//! The control plane opens a stream for each. [`ExecRequest`] or [`TerminalRequest`] is its first frame; then
//! [`ProcessInput`] goes towards the node and [`ProcessOutput`] comes back, each within the window of
//! [`crate::flow`]. The end of the stream before [`ProcessOutput::Ended`] means that nobody waits any more.

use crate::{
    bounded::{Bytes, List, Map, Text},
    container::Cause,
    id::{ContainerId, TerminalId, UserId},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

/// Bytes of one piece of input or output.
pub const PIECE_BYTES: usize = 16 << 10;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments; the program is looked up in the container's `PATH`.
    pub argv: List<Text<32768>, 512>,
    /// Variables over those of the container's first process.
    pub env: Map<Text<128>, Text<32768>, 256>,
    /// Working directory, absolute; empty: `/`.
    pub cwd: Text<4096>,
    /// `uid[:gid]` or `name[:group]` of the container's own accounts; empty: root.
    pub user: Text<256>,
}

/// Runs a process to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The container.
    pub container: ContainerId,
    /// What to run.
    pub command: Command,
    /// Milliseconds after which it is killed with all that it started.
    pub limit_ms: u64,
    /// Bytes sent of each of its two outputs; what exceeds them is read and counted.
    pub output_bytes: u64,
}

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Connects to a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalRequest {
    /// Which.
    pub terminal: TerminalId,
    /// The container.
    pub container: ContainerId,
    /// Who connects: nobody else can connect again.
    pub user: UserId,
    /// What it looks like now.
    pub size: TerminalSize,
    /// A new one, or one that is there.
    pub how: Connect,
}

/// How somebody connects to a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// It is made.
    New(Command),
    /// It is there. Whoever was connected no longer is.
    Again {
        /// The position behind the last byte that was seen; `None`: all that is kept.
        after: Option<u64>,
    },
}

/// Towards the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessInput {
    /// Bytes for its standard input or terminal.
    Data(Bytes<PIECE_BYTES>),
    /// The end of its standard input.
    End,
    /// The terminal has another size.
    Resize(TerminalSize),
    /// So many bytes of output were taken, and as many more may come.
    Credit(u32),
}

/// From the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessOutput {
    /// It runs.
    Started,
    /// Connected to a terminal.
    Connected {
        /// Position of the first byte that follows: more than was asked for where older ones are lost.
        position: u64,
        /// Bytes of input that the terminal has taken so far.
        input: u64,
    },
    /// Bytes of its standard output, or of its terminal.
    Output(Bytes<PIECE_BYTES>),
    /// Bytes of its standard error.
    Error(Bytes<PIECE_BYTES>),
    /// So many bytes of input were taken, and as many more may come.
    Credit(u32),
    /// It has ended, and all its output was sent.
    Ended(ProcessEnd),
    /// It could not be started, or connected to; or somebody else connected to the terminal.
    Failed(Cause),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// Its exit code, or the signal that ended it.
    pub exit: Exit,
    /// It was killed: `timeout`, `idle`, `too_old` or `ended`.
    pub cause: Option<Cause>,
    /// Bytes of standard output that were not sent.
    pub output_dropped: u64,
    /// Bytes of standard error that were not sent.
    pub error_dropped: u64,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub ended_at: UnixMs,
}

/// What the kernel says of a process's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// Nobody saw it end.
    Unknown,
}

/// Asks for the terminals of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalQuery {
    /// The container.
    pub container: ContainerId,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalList {
    /// Oldest first.
    pub terminals: List<TerminalInfo, 64>,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalInfo {
    /// Which.
    pub id: TerminalId,
    /// Who opened it.
    pub user: UserId,
    /// The program's name, without its arguments.
    pub program: Text<256>,
    /// Somebody is connected.
    pub connected: bool,
    /// Its size.
    pub size: TerminalSize,
    /// Position behind its last byte.
    pub position: u64,
    /// When it was opened.
    pub opened_at: UnixMs,
    /// When something was typed or shown last.
    pub active_at: UnixMs,
}

/// Ends a terminal with all that runs at it; answered by [`crate::link::CommandReply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalEnd {
    /// The container.
    pub container: ContainerId,
    /// Which.
    pub terminal: TerminalId,
}
