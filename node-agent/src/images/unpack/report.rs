//! What the unpacker tells the agent: one line of JSON on its standard output. The agent takes it for
//! hostile, because the unpacker has read hostile data.

use serde::{Deserialize, Serialize};

/// Longest report.
pub(crate) const MAX_REPORT_BYTES: usize = 8 << 10;
/// Characters of a path in a report.
const MAX_ENTRY_CHARS: usize = 256;

/// Why a layer's content is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The archive or its compression is damaged.
    #[error("the archive is damaged")]
    Malformed,
    /// A path has `..` in it, is empty where a name is needed, or has a NUL.
    #[error("the path is not acceptable")]
    Path,
    /// A path is longer or deeper than allowed.
    #[error("the path is too long or too deep")]
    PathTooLong,
    /// A hard link names something that is not there or cannot be linked to.
    #[error("the hard link has no target")]
    LinkTarget,
    /// A component of the path exists and is not a folder.
    #[error("a parent of the path is not a folder")]
    ParentNotFolder,
    /// An owner or group above 65,535.
    #[error("the owner is outside 0..65536")]
    Owner,
    /// An extended attribute that the file system cannot hold.
    #[error("an extended attribute is too large")]
    Xattr,
    /// An entry of a kind that is not known.
    #[error("the kind of entry is not known")]
    Kind,
    /// More entries than allowed.
    #[error("too many entries")]
    TooManyEntries,
    /// More bytes than allowed.
    #[error("too many bytes")]
    TooManyBytes,
}

/// What one layer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Entries read.
    pub entries: u64,
    /// Bytes of files written.
    pub bytes: u64,
    /// Whiteouts applied.
    pub whiteouts: u64,
    /// Device nodes left out.
    pub devices_skipped: u64,
    /// Extended attributes left out.
    pub xattrs_dropped: u64,
}

/// The unpacker's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Report {
    /// The layer is unpacked.
    Done(Tally),
    /// The layer is not acceptable.
    Refused { refusal: Refusal, entry: String },
    /// The system refused an operation.
    Failed { errno: i32, message: String, entry: String },
}

/// Why unpacking stopped, inside the unpacker.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The content is not acceptable.
    Refused(Refusal),
    /// The system refused an operation.
    Failed(std::io::Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<nix::errno::Errno> for Stop {
    fn from(error: nix::errno::Errno) -> Self {
        Self::Failed(error.into())
    }
}

impl Stop {
    pub(crate) fn report(self, entry: &[u8]) -> Report {
        let entry = String::from_utf8_lossy(entry).chars().take(MAX_ENTRY_CHARS).collect();
        match self {
            Self::Refused(refusal) => Report::Refused { refusal, entry },
            Self::Failed(error) => {
                let message = error.to_string().chars().take(MAX_ENTRY_CHARS).collect();
                Report::Failed { errno: error.raw_os_error().unwrap_or(0), message, entry }
            }
        }
    }
}
