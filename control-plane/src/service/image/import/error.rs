//! Why an image cannot be imported. Shown to the operator who runs the import, hence with paths.

use crate::{service::image::blobs::BlobError, store::StoreError};
use hoody_protocol::image::Digest;
use std::{io, path::PathBuf};

/// Why an image cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name is not one for the catalogue.
    #[error("{0:?} is not an image name: lowercase segments separated by \"/\", for example debian/12")]
    Name(String),
    /// The text is not a platform.
    #[error("{0:?} is not a platform: os/architecture[/variant], for example linux/amd64")]
    Platform(String),
    /// An option has a value that no image may have.
    #[error("{field}: {problem}")]
    Config {
        /// Which part of the configuration.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the source could not be read.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The source, or a file of a layout, is something else than a file.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The source is a folder without `oci-layout`.
    #[error("{} is not an OCI image layout: it has no \"oci-layout\" file", .0.display())]
    NotALayout(PathBuf),
    /// The source is no tar archive, or is broken.
    #[error("{} is not a complete tar archive (plain, gzip or zstd)", path.display())]
    NotATar {
        /// The source.
        path: PathBuf,
        /// What the reader said.
        source: io::Error,
    },
    /// An entry of an archive that has no business there.
    #[error("archive entry {name:?}: {problem}")]
    Entry {
        /// The entry's path.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More, larger or deeper than is accepted.
    #[error("{what} is over the limit of {max}")]
    Limit {
        /// What there is too much of.
        what: String,
        /// How much is accepted.
        max: u64,
    },
    /// An OCI document is not what it should be.
    #[error("{what} is not valid: {problem}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A blob is not what its descriptor says.
    #[error("blob {digest} has {found} bytes where {announced} were announced")]
    Size {
        /// The blob.
        digest: Digest,
        /// Bytes announced.
        announced: u64,
        /// Bytes found.
        found: u64,
    },
    /// A layer is in a form that nodes do not unpack.
    #[error("layer {digest} has the media type {media_type:?}, which is not supported")]
    LayerType {
        /// The layer.
        digest: String,
        /// Its media type.
        media_type: String,
    },
    /// A layer says that it is compressed in one way and is compressed in another.
    #[error("layer {digest} is not compressed as its media type says")]
    LayerContent {
        /// The layer.
        digest: Digest,
    },
    /// No image for the platform (and reference) asked for.
    #[error("no image for {wanted}; found: {found}")]
    NoMatch {
        /// What was asked for.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// Several images and no reference that chooses one.
    #[error("there are several images: choose one with --reference ({found})")]
    Ambiguous {
        /// The references.
        found: String,
    },
    /// A registry did not give a document.
    #[error(transparent)]
    Registry(Box<crate::service::image::registry::PullError>),
    /// The blob folder could not be changed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The catalogue could not be changed.
    #[error("catalogue")]
    Store(#[from] StoreError),
    /// The thread that copied blobs ended by a defect.
    #[error("import was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}
