//! What can go wrong here.

use std::{io, path::PathBuf};

/// Why the node could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error("{} is not in the form the kernel documents", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}
