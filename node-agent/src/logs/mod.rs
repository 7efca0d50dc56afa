//! What containers' first processes wrote: files of conmon (format `k8s-file`), read from any place, and kept in two
//! parts. conmon replaces a file that has reached its size by an empty one; [`keep`] makes what it replaces the
//! previous part, and only what was that part before is lost.

mod files;
mod keep;
mod read;
pub(crate) mod record;

pub use files::Files;
pub use keep::keep;
pub use read::Reader;

use hoody_protocol::{id::ContainerId, logs::LogRequest};
use std::path::PathBuf;

/// Why a log cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct LogError {
    /// What was tried.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

pub(crate) fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> LogError {
    let path = path.into();
    move |source| LogError { action, path, source }
}

/// The logs of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
}

impl Logs {
    /// Those in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Their folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Reads one of them. A container without one has written nothing.
    pub fn reader(&self, request: &LogRequest) -> Reader {
        Reader::new(self.files(request.container), *request)
    }

    fn files(&self, container: ContainerId) -> Files {
        Files::new(&self.folder, container)
    }
}
