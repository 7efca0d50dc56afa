//! Which parts of a file are data, and the map of them in the PAX form 1.0.

use crate::images::{MAX_SEGMENTS, Segment};
use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use std::{fs::File, io, os::unix::fs::MetadataExt};

const BLOCK_BYTES: usize = 512;

/// Parts of the file that are not holes; `None` where it has none worth a map.
pub(super) fn segments(file: &File, length: u64) -> io::Result<Option<Vec<Segment>>> {
    if file.metadata()?.blocks().saturating_mul(BLOCK_BYTES as u64) >= length {
        return Ok(None);
    }
    let mut segments = Vec::new();
    let mut end = 0u64;
    while end < length {
        let offset = match lseek(file, end as i64, Whence::SeekData) {
            Ok(offset) => offset as u64,
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if offset >= length {
            break;
        }
        end = (lseek(file, offset as i64, Whence::SeekHole)? as u64).min(length);
        if segments.len() as u64 + 1 == MAX_SEGMENTS {
            // Holes that are left are written as data.
            end = length;
        }
        segments.push((offset, end - offset));
    }
    lseek(file, 0, Whence::SeekSet)?;
    Ok((segments != [(0, length)]).then_some(segments))
}

/// The map, filled up to a block.
pub(super) fn map(segments: &[Segment]) -> Vec<u8> {
    let mut map = format!("{}\n", segments.len());
    for (offset, length) in segments {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK_BYTES), 0);
    map
}
