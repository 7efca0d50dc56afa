//! Images: blobs fetched by digest, verified before use, unpacked once into a read-only subvolume by a
//! sandboxed child.

mod blobs;
mod error;
mod store;
pub mod unpack;

pub use error::ImageError;
pub use store::{ImageConfig, ImageStore};

use async_trait::async_trait;
use hoody_protocol::{
    container::Cause,
    image::{Digest, ImageSpec},
};
use std::path::PathBuf;
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

/// The image store of the node.
#[async_trait]
pub trait Images: Send + Sync + std::fmt::Debug {
    /// Path of the image's read-only subvolume; fetches, verifies and unpacks where needed. Concurrent
    /// calls for one image share the work.
    async fn ensure(&self, image: &ImageSpec) -> Result<PathBuf, ImageError>;
}
