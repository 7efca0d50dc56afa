//! What a container's first process wrote, as the node keeps it. The control plane opens a stream with
//! [`LogRequest`] and asks for one [`LogBatch`] after the other with [`LogMore`]: who reads slowly asks seldom.

use crate::{
    bounded::{Bytes, List},
    id::ContainerId,
};
use serde::{Deserialize, Serialize};

/// Bytes of one record's text; a longer line comes in pieces.
pub const RECORD_BYTES: usize = 16 << 10;

/// A place between two records. It stays the same when the log starts over, as long as the record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// The part of the log: when it was begun, nanoseconds since the Unix epoch.
    pub part: u64,
    /// Bytes of the part before this place.
    pub offset: u64,
}

/// Which records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// The container.
    pub container: ContainerId,
    /// Only so many of the last ones that the rest lets through; not together with `after`.
    pub tail: Option<u32>,
    /// None before this, nanoseconds since the Unix epoch.
    pub since: Option<u64>,
    /// None after this, nanoseconds since the Unix epoch.
    pub until: Option<u64>,
    /// Standard output.
    pub output: bool,
    /// Standard error.
    pub error: bool,
    /// Only those behind this place.
    pub after: Option<LogPosition>,
    /// Where all is read, wait for more.
    pub follow: bool,
}

/// Asks for the next records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMore {
    /// Bytes of text that are wanted at most; one record comes whatever its length.
    pub bytes: u32,
}

/// The next records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// In the order in which they were written.
    pub records: List<LogRecord, 1024>,
    /// Records between the place asked for and the first of these are no longer kept.
    pub lost: bool,
    /// Nothing comes behind these.
    pub end: bool,
}

/// A line, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// When it was written, nanoseconds since the Unix epoch.
    pub at: u64,
    /// True: standard error.
    pub error: bool,
    /// The line goes on in the next record of the same stream.
    pub partial: bool,
    /// Without the end of the line.
    pub text: Bytes<RECORD_BYTES>,
    /// The place behind it.
    pub position: LogPosition,
}
