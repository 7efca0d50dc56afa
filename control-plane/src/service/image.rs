//! Images.

use hoody_protocol::image::Digest;
use std::path::{Path, PathBuf};

/// Where the blob with this digest is, if it is there.
pub fn blob_path(data_dir: &Path, digest: Digest) -> PathBuf {
    data_dir.join("blobs").join(digest.hex())
}
