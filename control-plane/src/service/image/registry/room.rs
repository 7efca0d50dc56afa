//! Room on the control plane's disk, of which some stays free whatever is pulled.

use super::error::PullError;
use std::{io, path::Path};

/// Bytes that stay free.
const RESERVED_BYTES: u64 = 1 << 30;
/// Bytes written between two looks: other pulls and uploads take of the same room.
pub(super) const LOOK_BYTES: u64 = 16 << 20;

/// An error where `missing` bytes more would take what must stay free.
pub(super) fn check(folder: &Path, missing: u64) -> Result<(), PullError> {
    let free = nix::sys::statvfs::statvfs(folder)
        .map_err(|error| PullError::Io("look for room for", error.into()))
        .map(|found| found.blocks_available().saturating_mul(found.fragment_size()))?;
    match missing.saturating_add(RESERVED_BYTES).saturating_sub(free) {
        0 => Ok(()),
        needed => Err(PullError::Room { needed }),
    }
}

/// What a failure to write means, of a file that misses as many bytes.
pub(super) fn written(error: io::Error, missing: u64) -> PullError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            PullError::Room { needed: missing.saturating_add(RESERVED_BYTES) }
        }
        _ => PullError::Io("write", error),
    }
}
