//! Why an image cannot be pulled, for the operator's log in full, and in a form that tenants may see.

use super::reference::Reference;
use crate::{
    error::chain,
    service::image::{blobs::BlobError, import::ImportError},
    store::StoreError,
};
use hoody_protocol::{address::NotPublic, container::Cause, image::Digest};
use std::io;

/// Why an image cannot be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The HTTP client cannot be made: the settings are wrong.
    #[error("HTTP client for registries")]
    Client(#[source] reqwest::Error),
    /// The file of further authorities cannot be read.
    #[error("read the file of registry_certificate")]
    Certificate(#[source] io::Error),
    /// A host that must not be dialled.
    #[error("{host} is at {why}: a registry must be one of the public internet")]
    Address {
        /// The host, as the reference, a redirection or a token's realm names it.
        host: String,
        /// What it is.
        why: NotPublic,
    },
    /// Somewhere that is not reached by HTTPS, or has credentials in its address.
    #[error("{0} is not an address that is gone to: it must be plain https")]
    Scheme(String),
    /// Redirected too often, or nowhere.
    #[error("the registry redirects more than {0} times, or nowhere")]
    Redirects(usize),
    /// No answer.
    #[error("the registry {host} does not answer")]
    Unreachable {
        /// The host.
        host: String,
        /// What the client said.
        source: reqwest::Error,
    },
    /// The registry took too long over something small.
    #[error("the registry took longer than {0} s")]
    Slow(u64),
    /// A layer that hardly comes.
    #[error("layer {digest} comes too slowly: less than {} KiB in {seconds} s", least >> 10)]
    Stalled {
        /// The layer.
        digest: Digest,
        /// Bytes that should have come.
        least: u64,
        /// Within this time.
        seconds: u64,
    },
    /// Wrong or no credentials, or the image is not there: registries do not tell them apart.
    #[error("the registry does not let us read {0}: wrong name, or credentials are needed")]
    Denied(Reference),
    /// What a registry asks for to let us in is not understood.
    #[error("the registry asks for a kind of authentication that is not supported")]
    Challenge,
    /// There is no such image.
    #[error("the registry has no {0}")]
    NotFound(String),
    /// Another status.
    #[error("the registry answers {what} with status {status}")]
    Status {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
    },
    /// More bytes than a document may have.
    #[error("{what} has more than {max} bytes")]
    Large {
        /// What was read.
        what: String,
        /// Bytes allowed.
        max: u64,
    },
    /// The registry's documents or a layer's form are refused.
    #[error(transparent)]
    Import(ImportError),
    /// A layer ended early.
    #[error("layer {digest} broke off after {found} of {announced} bytes")]
    BrokeOff {
        /// The layer.
        digest: Digest,
        /// Bytes announced.
        announced: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A layer goes on behind its announced size.
    #[error("layer {digest} is longer than the {announced} bytes that were announced")]
    TooLong {
        /// The layer.
        digest: Digest,
        /// Bytes announced.
        announced: u64,
    },
    /// The image is larger than the operator allows.
    #[error("the image has {bytes} bytes, of at most {max}")]
    ImageTooLarge {
        /// Bytes of all layers.
        bytes: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// What was stored of the pull cannot be read.
    #[error("the stored {0} of the pull cannot be read")]
    Stored(&'static str),
    /// The database.
    #[error("read what the account has")]
    Store(#[source] StoreError),
    /// No room for it.
    #[error("there is no room for the image on the control plane: {needed} bytes are missing")]
    Room {
        /// Bytes missing.
        needed: u64,
    },
    /// Another collection removed a blob that this image shares.
    #[error("blob {0} was removed meanwhile")]
    Vanished(Digest),
    /// Somebody else is fetching the same blob.
    #[error("another pull is fetching blob {0}")]
    Busy(Digest),
    /// A file of a layer could not be read or written.
    #[error("{0} a layer's file")]
    Io(&'static str, #[source] io::Error),
    /// The blob folder could not be changed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The whole pull took too long.
    #[error("the pull took longer than {0} s")]
    Deadline(u64),
    /// A thread ended by a defect.
    #[error("the pull was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl From<ImportError> for PullError {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Registry(error) => *error,
            other => Self::Import(other),
        }
    }
}

impl PullError {
    /// True where trying again soon may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Slow(_)
            | Self::Stalled { .. }
            | Self::BrokeOff { .. }
            | Self::Vanished(_)
            | Self::Busy(_) => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// What a tenant is told: nothing of the control plane's own files and addresses.
    pub fn cause(&self) -> Cause {
        let code = match self {
            Self::Address { .. } | Self::Scheme(_) | Self::Redirects(_) => "registry_address",
            Self::Unreachable { .. } | Self::Slow(_) | Self::Status { .. } | Self::BrokeOff { .. } | Self::Busy(_) => {
                "registry_unreachable"
            }
            Self::Stalled { .. } => "registry_slow",
            Self::Denied(_) | Self::Challenge => "registry_denied",
            Self::NotFound(_) => "image_not_found",
            Self::Import(ImportError::NoMatch { .. }) => "image_platform",
            Self::Large { .. }
            | Self::TooLong { .. }
            | Self::ImageTooLarge { .. }
            | Self::Import(ImportError::Limit { .. }) => "image_too_large",
            Self::Import(_) => "image_invalid",
            Self::Blob(BlobError::Mismatch { .. }) => "image_invalid",
            Self::Deadline(_) => "image_pull_deadline",
            Self::Room { .. } => "image_no_room",
            Self::Client(_)
            | Self::Certificate(_)
            | Self::Stored(_)
            | Self::Store(_)
            | Self::Vanished(_)
            | Self::Io(..)
            | Self::Blob(_)
            | Self::Interrupted(_) => {
                return Cause::new("image_not_stored", "the control plane could not store the image");
            }
        };
        let message = match self {
            Self::Room { .. } => "there is no room for the image on the control plane".to_owned(),
            // The client's own words name addresses that a name resolved to.
            Self::Unreachable { .. } => self.to_string(),
            other => chain(other),
        };
        Cause::new(code, message)
    }
}
