//! What can go wrong here.

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A file or folder operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, for example "open".
        action: &'static str,
        /// On which path.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
