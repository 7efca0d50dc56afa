//! Data of a sparse file in the PAX form 1.0 (GNU tar manual, "Storing Sparse Files"): a map, then what is not holes.
//!
//! The map is decimal numbers, each ended by a newline: how many segments, then offset and length of each. It is filled
//! up to a block.

use super::report::{Refusal, Stop};
use std::io::Read;

/// Segments of one file.
pub(crate) const MAX_SEGMENTS: u64 = 65_536;
const BLOCK_BYTES: u64 = 512;
/// Digits of the largest number.
const MAX_DIGITS: usize = 20;

/// Offset and length of what is not a hole.
pub(crate) type Segment = (u64, u64);

/// Reads the map of a file of `real_size` bytes whose data has `size` bytes, the map included. The segments are in order,
/// do not overlap, end within the file, and are all of the data behind the map.
pub(crate) fn read_map(data: &mut impl Read, size: u64, real_size: u64) -> Result<Vec<Segment>, Stop> {
    let mut read = 0;
    let count = number(data, &mut read)?;
    if count > MAX_SEGMENTS {
        return Err(Refusal::TooManyEntries.into());
    }
    let mut segments = Vec::new();
    let (mut end, mut total) = (0u64, 0u64);
    for _ in 0..count {
        let (offset, length) = (number(data, &mut read)?, number(data, &mut read)?);
        let next = offset.checked_add(length).filter(|next| offset >= end && *next <= real_size);
        end = next.ok_or(Refusal::Malformed)?;
        total += length;
        segments.push((offset, length));
    }
    let mut padding = [0; BLOCK_BYTES as usize];
    let padding = &mut padding[..(read.wrapping_neg() % BLOCK_BYTES) as usize];
    data.read_exact(padding).map_err(super::archive::damaged)?;
    if read + padding.len() as u64 + total != size {
        return Err(Refusal::Malformed.into());
    }
    Ok(segments)
}

fn number(data: &mut impl Read, read: &mut u64) -> Result<u64, Stop> {
    let mut text = [0; MAX_DIGITS];
    for length in 0..=MAX_DIGITS {
        let mut byte = [0];
        data.read_exact(&mut byte).map_err(super::archive::damaged)?;
        *read += 1;
        match byte[0] {
            b'\n' if length > 0 => {
                let text = std::str::from_utf8(&text[..length]).map_err(|_| Refusal::Malformed)?;
                return Ok(text.parse().map_err(|_| Refusal::Malformed)?);
            }
            digit if digit.is_ascii_digit() && length < MAX_DIGITS => text[length] = digit,
            _ => break,
        }
    }
    Err(Refusal::Malformed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str, data: u64, real_size: u64) -> Result<Vec<Segment>, Stop> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let size = bytes.len() as u64 + data;
        read_map(&mut &bytes[..], size, real_size)
    }

    #[test]
    fn a_map_names_all_of_the_data_in_order() {
        assert_eq!(map("2\n0\n3\n4096\n5\n", 8, 5000).unwrap(), [(0, 3), (4096, 5)]);
        assert_eq!(map("0\n", 0, 1 << 62).unwrap(), []);
        for (text, data, real_size) in [
            ("2\n0\n3\n2\n5\n", 8, 5000),
            ("1\n0\n3\n", 4, 5000),
            ("1\n4999\n2\n", 2, 5000),
            ("1\n18446744073709551615\n1\n", 1, 5000),
            ("-1\n", 0, 5000),
            ("\n", 0, 5000),
            ("65537\n", 0, 5000),
            ("100000000000000000000000\n", 0, 5000),
            ("1\n0\n", 0, 5000),
        ] {
            assert!(matches!(map(text, data, real_size), Err(Stop::Refused(_))), "{text:?}");
        }
        assert!(matches!(read_map(&mut &b"1\n0"[..], 512, 5000), Err(Stop::Refused(Refusal::Malformed))), "cut off");
    }
}
