//! What the agent persists: a record per container ([`record`]), the journal of reports that the
//! control plane has not acknowledged ([`journal`]), and who holds which address and id range
//! ([`allocation`]).
//!
//! A record is written before anything of the container is made and removed after everything is gone,
//! so that whatever exists is known. Files are checksummed; a damaged one is a loud error that names it.

pub mod allocation;
pub mod file;
pub mod journal;
pub mod record;

/// Why something could not be persisted or read back.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what was written.
    #[error("{} is damaged: {reason}; restore it from a backup, or remove it and let the control plane send it again", path.display())]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// No address can be given.
    #[error(transparent)]
    Address(crate::network::AddressError),
    /// Every id range is taken.
    #[error("every range of user ids is taken")]
    IdsExhausted,
}

impl DesiredError {
    /// The damaged file, where that is the error.
    pub fn damaged(&self) -> Option<&std::path::Path> {
        match self {
            Self::Damaged { path, .. } => Some(path),
            _ => None,
        }
    }
}
