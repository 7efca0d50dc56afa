//! How much may be received.

/// What may be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that it may take on the disk.
    pub bytes: u64,
    /// Bytes that everything that was received for the container may take there, as far as it is still there: also in
    /// snapshots of the container, whose own limit does not count it.
    pub all_bytes: u64,
    /// Bytes that the stream may have.
    pub stream_bytes: u64,
}

impl Room {
    /// Bytes of a stream for each on the disk, which may be compressed there.
    const STREAM_FACTOR: u64 = 4;
    /// What is received may take so many times its room while what came before is there too.
    const ALL_FACTOR: u64 = 2;

    /// For a container whose file system may take `bytes`.
    pub fn of(bytes: u64) -> Self {
        let stream_bytes = bytes.saturating_mul(Self::STREAM_FACTOR);
        Self { bytes, all_bytes: bytes.saturating_mul(Self::ALL_FACTOR), stream_bytes }
    }

    /// The same, of which so many bytes are taken by what came before and stays.
    #[must_use]
    pub fn beside(self, taken: u64) -> Self {
        Self { all_bytes: self.all_bytes, ..Self::of(self.bytes.saturating_sub(taken)) }
    }
}
