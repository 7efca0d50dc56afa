//! What the receiver process says, and why it may stop.

use super::stream::{Malformed, ReadError, Uuid};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::io;

/// Characters of a path or message that are kept of what the stream said.
const MAX_CHARS: usize = 200;
/// Bytes of the longest report.
pub(crate) const MAX_REPORT_BYTES: u64 = 8 << 10;

/// Why a stream is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It is not a stream that the kernel makes.
    #[error("it is malformed")]
    Malformed,
    /// It does not begin with the one subvolume that it is about.
    #[error("it does not begin with its subvolume")]
    Beginning,
    /// It is the difference from something else than what is here.
    #[error("it is the difference from another file system")]
    Parent,
    /// It is about more than one subvolume.
    #[error("it has a second subvolume")]
    Nested,
    /// A path leads out, through a link, or is longer than the kernel takes.
    #[error("it has a path that leads elsewhere")]
    Path,
    /// It takes data from another subvolume.
    #[error("it takes data from another subvolume")]
    Clone,
    /// It makes a device node.
    #[error("it has a device node")]
    Device,
}

/// What a whole stream was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Identity of the subvolume that was sent.
    pub(crate) uuid: Uuid,
    /// Its generation when it was sent.
    pub(crate) generation: u64,
    /// Commands carried out.
    pub(crate) commands: u64,
    /// Extended attributes left out.
    pub(crate) attributes_dropped: u64,
}

/// The receiver's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Report {
    /// Everything was carried out.
    Done(Tally),
    /// The stream is not acceptable.
    Refused { refusal: Refusal, detail: String },
    /// The system refused an operation.
    Failed { errno: i32, message: String },
}

/// Why receiving stopped, inside the receiver.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(Refusal, String),
    Failed(io::Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, String::new())
    }
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Refused(Refusal::Malformed, malformed.to_string())
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Malformed(malformed) => malformed.into(),
            ReadError::Io(error) => Self::Failed(error),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

impl Stop {
    pub(crate) fn report(self) -> Report {
        let short = |text: &str| text.chars().take(MAX_CHARS).collect();
        match self {
            Self::Refused(refusal, detail) => Report::Refused { refusal, detail: short(&detail) },
            Self::Failed(error) => {
                Report::Failed { errno: error.raw_os_error().unwrap_or(0), message: short(&error.to_string()) }
            }
        }
    }
}
