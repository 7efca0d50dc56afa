//! The last bytes that a terminal showed, by their position in all that it ever showed.

use std::collections::VecDeque;

/// Bytes that are kept at most.
pub(super) const CAPACITY: usize = 512 << 10;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    /// Position behind the last byte.
    end: u64,
}

impl Ring {
    /// Position of the oldest byte that is kept.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes can be added without losing one at `floor` or behind it.
    pub(super) fn room(&self, floor: u64) -> usize {
        let kept = self.end.saturating_sub(floor.max(self.start()));
        CAPACITY.saturating_sub(usize::try_from(kept).unwrap_or(CAPACITY))
    }

    /// Adds bytes; the oldest give way.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(CAPACITY);
        self.bytes.drain(..excess.min(self.bytes.len()));
        self.bytes.extend(&bytes[bytes.len().saturating_sub(CAPACITY)..]);
        self.end += bytes.len() as u64;
    }

    /// Up to `most` bytes from `position` on, which is within what is kept.
    pub(super) fn read(&self, position: u64, most: usize) -> Vec<u8> {
        let skip = usize::try_from(position.saturating_sub(self.start())).unwrap_or(usize::MAX);
        self.bytes.range(skip.min(self.bytes.len())..).take(most).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_found_by_their_position() {
        let mut ring = Ring::default();
        ring.push(b"hello ");
        ring.push(b"world");
        assert_eq!((ring.start(), ring.end()), (0, 11));
        assert_eq!(ring.read(6, 3), b"wor");
        assert_eq!(ring.read(11, 3), b"");
        ring.push(&vec![b'x'; CAPACITY - 1]);
        assert_eq!((ring.start(), ring.end()), (10, CAPACITY as u64 + 10));
        assert_eq!(ring.read(10, 2), b"dx");
        ring.push(&vec![b'y'; 3 * CAPACITY]);
        assert_eq!(ring.end() - ring.start(), CAPACITY as u64);
    }

    #[test]
    fn room_is_what_can_be_added_without_losing_what_is_still_needed() {
        let mut ring = Ring::default();
        assert_eq!(ring.room(0), CAPACITY);
        ring.push(&[0; 1000]);
        assert_eq!(ring.room(0), CAPACITY - 1000);
        assert_eq!(ring.room(900), CAPACITY - 100);
        assert_eq!(ring.room(1000), CAPACITY);
        ring.push(&vec![0; CAPACITY]);
        assert_eq!(ring.room(0), 0, "what is lost already is not waited for");
        assert_eq!(ring.room(ring.end()), CAPACITY);
    }
}
