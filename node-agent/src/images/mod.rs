//! Images: blobs fetched by digest, verified before use, unpacked once into read-only subvolumes by a
//! sandboxed child.

mod blobs;
pub mod chain;
pub mod collect;
mod error;
mod make;
mod room;
mod store;
pub mod unpack;

pub use error::ImageError;
pub use store::{ImageConfig, ImageStore};
pub(crate) use unpack::sparse::{MAX_SEGMENTS, Segment};

use async_trait::async_trait;
use hoody_protocol::{
    container::Cause,
    image::{Digest, ImageSpec},
};
use std::{collections::HashSet, path::PathBuf};
use tokio::io::AsyncRead;

/// Where blobs come from.
#[async_trait]
pub trait BlobSource: Send + Sync + std::fmt::Debug {
    /// Opens the blob at `offset`; the reader yields the bytes from there to the end.
    async fn open(&self, digest: Digest, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, BlobError>;
}

/// Why a blob could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No link to the control plane; try again when it is back.
    #[error("the control plane is not reachable")]
    Unreachable,
    /// The control plane refused.
    #[error("refused: {}", .0.message)]
    Refused(Cause),
    /// The transfer broke.
    #[error("transfer of {digest}")]
    Transfer {
        /// The blob.
        digest: Digest,
        /// What broke.
        source: std::io::Error,
    },
}

/// Gives the trees ([`chain::ids`]) of the images that containers name at this moment.
pub type InUse<'a> = &'a (dyn Fn() -> HashSet<Digest> + Send + Sync);

/// The image store of the node.
#[async_trait]
pub trait Images: Send + Sync + std::fmt::Debug {
    /// Path of the image's read-only subvolume; fetches, verifies and unpacks where needed. Concurrent
    /// calls for one image share the work.
    async fn ensure(&self, image: &ImageSpec) -> Result<PathBuf, ImageError>;
    /// Deletes trees of images that no container names: those unused for long, and, after an image did not fit, all
    /// of them. Gives what was deleted.
    async fn collect(&self, in_use: InUse<'_>) -> Result<Vec<Digest>, ImageError>;
    /// Returns when an image did not fit.
    async fn short_of_room(&self);
}
