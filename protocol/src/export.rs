//! Export of a container as an archive, over the bulk connection.
//!
//! The control plane orders its node to make the archive ([`ExportOrder`], over the link); the node keeps a read-only
//! snapshot and offers the archive ([`ExportOffer`]) on a stream of its bulk connection. After
//! [`TransferReply::Begin`](crate::transfer::TransferReply) it writes
//! [`TransferData`](crate::transfer::TransferData) to its end. A stream that breaks is not gone on with: whoever wanted
//! the archive asks anew.
//!
//! The archive is a tar archive (POSIX.1-2001, "pax"), compressed with Zstandard (RFC 8878):
//!
//! | member | |
//! | --- | --- |
//! | `container.json` | first: what the container was, without secrets; the control plane writes it |
//! | `rootfs/…` | its files, owners as the container sees them |
//! | `manifest.json` | last: [`Manifest`] |

use crate::{
    bounded::Bytes,
    id::{ContainerId, ExportId},
    image::Digest,
};
use serde::{Deserialize, Serialize};

/// Name of the archive's first member.
pub const DOCUMENT: &str = "container.json";
/// Name of the folder that all files are below.
pub const ROOT: &str = "rootfs";
/// Name of the archive's last member.
pub const MANIFEST: &str = "manifest.json";
/// Version of the archive's format.
pub const VERSION: u32 = 1;
/// Bytes of `container.json`.
pub const MAX_DOCUMENT_BYTES: usize = 2 << 20;
/// Bytes of `manifest.json`.
pub const MAX_MANIFEST_BYTES: usize = 4 << 10;
/// Bytes of an archive without its compression.
pub const MAX_ARCHIVE_BYTES: u64 = 256 << 30;

/// Orders a container's node to export it. Answered with a `CommandReply`; the archive is then offered on the bulk
/// connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportOrder {
    /// The export.
    pub export: ExportId,
    /// Whose files.
    pub container: ContainerId,
    /// What `container.json` is to hold.
    pub document: Bytes<MAX_DOCUMENT_BYTES>,
}

/// Offers the archive of an export, from the container's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportOffer {
    /// The export.
    pub export: ExportId,
}

/// What the last member of an archive says of all before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of the archive, without its compression, up to the header of `manifest.json`.
    pub bytes: u64,
    /// The digest of those bytes.
    pub digest: Digest,
    /// Members below `rootfs/`, that folder included.
    pub entries: u64,
    /// Sockets and devices, which an archive does not hold.
    pub left_out: u64,
}
