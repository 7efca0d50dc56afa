//! Transfer of image blobs over the bulk connection: a request, an answer, then the bytes.

use crate::{container::Cause, image::Digest};
use serde::{Deserialize, Serialize};

/// Asks for a blob from an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRequest {
    /// The blob.
    pub digest: Digest,
    /// Bytes that the agent already has.
    pub offset: u64,
}

/// The answer; after `Found` follow `size - offset` bytes, then the end of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlobReply {
    /// The bytes follow.
    Found {
        /// Bytes of the whole blob.
        size: u64,
    },
    /// No bytes follow.
    Refused(Cause),
}
