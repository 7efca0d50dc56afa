//! Images: what a node needs to fetch, verify and unpack a root file system.

use crate::bounded::{List, Map, Text};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Layers of one image.
pub const MAX_LAYERS: usize = 128;
/// Bytes of one compressed layer.
pub const MAX_LAYER_BYTES: u64 = 64 << 30;

/// A SHA-256 digest; its text form is `sha256:` and 64 lowercase hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// The text is not `sha256:` and 64 lowercase hexadecimal characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is \"sha256:\" and 64 lowercase hexadecimal characters")]
pub struct InvalidDigest;

impl Digest {
    /// The digest with these bytes, as a hasher gives them.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(data).into())
    }

    /// The 64 hexadecimal characters, for file names.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let digits = text.strip_prefix("sha256:").ok_or(InvalidDigest)?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidDigest);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidDigest)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// An image as a container's specification names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Identity of the whole image: the digest over layers and configuration
    /// ([`ImageSpec::identity`]). Unpacked images are stored under it.
    pub digest: Digest,
    /// The layers, lowest first.
    pub layers: List<Layer, MAX_LAYERS>,
    /// How the image wants to be run.
    pub config: ImageConfig,
}

/// One layer: a tar archive, maybe compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the blob as it is transferred.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// How the tar archive is compressed.
    pub compression: Compression,
    /// Set where the blob is the archive of a container ([`crate::export`]): the layer is what it has below
    /// [`crate::export::ROOT`], and this is the archive's length without its compression. Absent: a layer of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
}

/// Compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar archive.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// How an image wants to be run (the parts of the OCI image configuration that matter to a node).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The command line of the container's first process; empty: the image's own `/sbin/init` where
    /// it has one, otherwise an init that only waits.
    pub command: List<Text<4096>, 256>,
    /// Environment of the first process, below the container's own.
    pub env: Map<Text<128>, Text<4096>, 256>,
    /// Working directory; empty: `/`.
    pub workdir: Text<4096>,
    /// `uid[:gid]` or `name[:group]`; empty: root.
    pub user: Text<128>,
    /// Signal that asks the first process to end, for example `SIGTERM`; empty: the runtime's default.
    pub stop_signal: Text<32>,
}

impl ImageSpec {
    /// True where it is one container's own, made from the archive of another: nobody else names it.
    pub fn is_archive(&self) -> bool {
        self.layers.iter().any(|layer| layer.archive_bytes.is_some())
    }

    /// An image of these parts, with its identity computed.
    pub fn new(layers: List<Layer, MAX_LAYERS>, config: ImageConfig) -> Self {
        let digest = Self::identity(&layers, &config);
        Self { digest, layers, config }
    }

    /// The digest over layers and configuration. It is computed over canonical CBOR (struct fields in
    /// declaration order, maps sorted), so that equal images have equal identities.
    pub fn identity(layers: &List<Layer, MAX_LAYERS>, config: &ImageConfig) -> Digest {
        let bytes = minicbor_serde::to_vec((layers, config)).expect("plain data always encodes");
        Digest::of(&bytes)
    }

    /// True where the identity is that of the parts.
    pub fn is_consistent(&self) -> bool {
        self.digest == Self::identity(&self.layers, &self.config)
    }
}
