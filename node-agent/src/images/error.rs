//! What can go wrong here.

use super::{BlobError, unpack::Refusal};
use crate::storage::StorageError;
use hoody_protocol::image::Digest;
use std::{io, path::Path, path::PathBuf, sync::Arc};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or folder operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, for example "open".
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image's digest is not that of its layers and configuration.
    #[error("image {image} is not what its digest says")]
    Inconsistent {
        /// The digest that was given.
        image: Digest,
    },
    /// A layer or the whole image is larger than this node takes.
    #[error("image {image} has {bytes} bytes of layers; at most {limit} are taken")]
    TooLarge {
        /// The image.
        image: Digest,
        /// Bytes of its layers, compressed.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The pool or the state folder has too little room left.
    #[error("{} has {available} bytes left, the image needs at least {needed}", path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What is there.
        available: u64,
        /// What would be needed at least, the reserve included.
        needed: u64,
    },
    /// The blob could not be had; what has arrived is kept, and the next try goes on from there.
    #[error("fetch blob {digest}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        source: BlobError,
    },
    /// The blob came too slowly; what has arrived is kept.
    #[error("blob {digest} stalled at byte {offset}")]
    Stalled {
        /// The blob.
        digest: Digest,
        /// Bytes that have arrived.
        offset: u64,
    },
    /// The blob ended early; what has arrived is kept.
    #[error("blob {digest} ended after {got} of {expected} bytes")]
    Truncated {
        /// The blob.
        digest: Digest,
        /// Bytes that have arrived.
        got: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// The blob is longer than announced; it was thrown away.
    #[error("blob {digest} is longer than {expected} bytes")]
    Overlong {
        /// The blob.
        digest: Digest,
        /// Bytes that were announced.
        expected: u64,
    },
    /// The blob's content is not what its digest says; it was thrown away.
    #[error("blob {digest} has another content, {found}")]
    DigestMismatch {
        /// The digest asked for.
        digest: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// The layer's content is not acceptable; trying again will not help.
    #[error("layer {layer} refused at entry {entry:?}: {refusal}")]
    LayerRefused {
        /// The layer's blob.
        layer: Digest,
        /// Why.
        refusal: Refusal,
        /// The path in the archive, shortened; empty where it is not about one.
        entry: String,
    },
    /// Writing the layer's files failed.
    #[error("unpack layer {layer} at entry {entry:?}")]
    Unpack {
        /// The layer's blob.
        layer: Digest,
        /// The path in the archive, shortened; empty where it is not about one.
        entry: String,
        /// What the system said.
        source: io::Error,
    },
    /// The unpacker did not end in time and was killed.
    #[error("unpacking layer {layer} did not end within {seconds} s")]
    UnpackDeadline {
        /// The layer's blob.
        layer: Digest,
        /// The limit.
        seconds: u64,
    },
    /// The unpacker ended without a report.
    #[error("the unpacker of layer {layer} died: {status} {diagnosis}")]
    UnpackerDied {
        /// The layer's blob.
        layer: Digest,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to standard error, shortened.
        diagnosis: String,
    },
    /// A step on the pool failed.
    #[error("image pool")]
    Storage(#[from] StorageError),
    /// The same image was being made for another caller, and that failed.
    #[error(transparent)]
    Shared(Arc<ImageError>),
    /// The task that made the image is gone: it panicked, or the agent is shutting down.
    #[error("making image {image} was cut off")]
    CutOff {
        /// The image.
        image: Digest,
    },
}

impl ImageError {
    /// Wraps what the system said; for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// The failure itself, also where another caller's attempt brought it.
    pub fn root(&self) -> &Self {
        match self {
            Self::Shared(inner) => inner.root(),
            other => other,
        }
    }

    /// True where the same call can succeed later without anyone changing the image.
    pub fn is_retryable(&self) -> bool {
        match self.root() {
            Self::Inconsistent { .. } | Self::TooLarge { .. } | Self::LayerRefused { .. } => false,
            Self::Io { .. }
            | Self::NoSpace { .. }
            | Self::Blob { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::Overlong { .. }
            | Self::DigestMismatch { .. }
            | Self::Unpack { .. }
            | Self::UnpackDeadline { .. }
            | Self::UnpackerDied { .. }
            | Self::Storage(_)
            | Self::Shared(_)
            | Self::CutOff { .. } => true,
        }
    }
}
