//! The parts of the OCI image documents that an import reads (image-spec v1.1: index, manifest,
//! config, layout). Docker's media types of the same documents are accepted too.

use super::{ImportError, platform::Platform};
use hoody_protocol::image::{Compression, Digest};
use serde::{Deserialize, de::DeserializeOwned};
use std::collections::HashMap;

/// Bytes of an index, a manifest or a configuration.
pub(in crate::service::image) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// `oci-layout`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::service::image) struct LayoutHeader {
    pub(in crate::service::image) image_layout_version: String,
}

/// `index.json`, or an index among the blobs.
#[derive(Debug, Deserialize)]
pub(in crate::service::image) struct Index {
    pub(in crate::service::image) manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Debug, Deserialize)]
pub(in crate::service::image) struct Manifest {
    pub(in crate::service::image) config: Descriptor,
    pub(in crate::service::image) layers: Vec<Descriptor>,
}

/// What points to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::service::image) struct Descriptor {
    pub(in crate::service::image) media_type: String,
    /// Unparsed, because a descriptor that is skipped may be of another algorithm.
    pub(in crate::service::image) digest: String,
    pub(in crate::service::image) size: u64,
    #[serde(default)]
    pub(in crate::service::image) annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    pub(in crate::service::image) platform: Option<DescribedPlatform>,
}

/// The platform in a descriptor or a configuration.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::service::image) struct DescribedPlatform {
    pub(in crate::service::image) architecture: String,
    pub(in crate::service::image) os: String,
    #[serde(default)]
    pub(in crate::service::image) variant: Option<String>,
}

/// An image configuration.
#[derive(Debug, Deserialize)]
pub(in crate::service::image) struct Configuration {
    #[serde(flatten)]
    pub(in crate::service::image) platform: DescribedPlatform,
    #[serde(default)]
    pub(in crate::service::image) config: Option<Execution>,
    pub(in crate::service::image) rootfs: RootFs,
}

/// How the image wants to be run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::service::image) struct Execution {
    pub(in crate::service::image) user: Option<String>,
    pub(in crate::service::image) env: Option<Vec<String>>,
    pub(in crate::service::image) entrypoint: Option<Vec<String>>,
    pub(in crate::service::image) cmd: Option<Vec<String>>,
    pub(in crate::service::image) working_dir: Option<String>,
    pub(in crate::service::image) stop_signal: Option<String>,
}

/// The layers' digests when not compressed.
#[derive(Debug, Deserialize)]
pub(in crate::service::image) struct RootFs {
    #[serde(default)]
    pub(in crate::service::image) diff_ids: Option<Vec<String>>,
}

impl From<DescribedPlatform> for Platform {
    fn from(described: DescribedPlatform) -> Self {
        Self { os: described.os, architecture: described.architecture, variant: described.variant }
    }
}

/// Parses a document.
pub(in crate::service::image) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImportError::Document { what: what.to_owned(), problem: error.to_string() })
}

/// What a descriptor points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service::image) enum Kind {
    Index,
    Manifest,
    Other,
}

impl Descriptor {
    pub(in crate::service::image) fn kind(&self) -> Kind {
        match self.media_type.as_str() {
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                Kind::Index
            }
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                Kind::Manifest
            }
            _ => Kind::Other,
        }
    }

    pub(in crate::service::image) fn is_configuration(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
        )
    }

    /// The digest. Nothing else than 64 hexadecimal characters comes out of it, so that it cannot lead
    /// out of the layout.
    pub(in crate::service::image) fn digest(&self) -> Result<Digest, ImportError> {
        self.digest.parse().map_err(|error| ImportError::Document {
            what: format!("descriptor {:?}", shortened(&self.digest)),
            problem: format!("{error}"),
        })
    }

    /// The name that the layout gives to what the descriptor points to.
    pub(in crate::service::image) fn reference(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
    }

    /// How a layer is compressed.
    pub(in crate::service::image) fn compression(&self) -> Result<Compression, ImportError> {
        match self.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Ok(Compression::None)
            }
            "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Ok(Compression::Gzip)
            }
            "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
                Ok(Compression::Zstd)
            }
            other => Err(ImportError::LayerType { digest: shortened(&self.digest), media_type: shortened(other) }),
        }
    }
}

/// The beginning of a text from outside, for a message.
pub(in crate::service::image) fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    text.chars().take(MAX_CHARS).collect()
}
