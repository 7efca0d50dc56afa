//! What can go wrong with a container's processes.

use hoody_protocol::id::ContainerId;
use std::{path::PathBuf, time::Duration};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file or folder operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, for example "open".
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A system call on a process failed.
    #[error("{action} process {pid}")]
    Process {
        /// What was tried, for example "signal".
        action: &'static str,
        /// On which process.
        pid: i32,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration cannot be used.
    #[error("runtime configuration: {reason}")]
    Config {
        /// What is wrong with it.
        reason: String,
    },
    /// A program that this module needs could not be started.
    #[error("start program {}", program.display())]
    Program {
        /// Which program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ran and reported failure.
    #[error("{program} {verb} failed ({status}): {message}")]
    Failed {
        /// Its file name.
        program: String,
        /// What it was asked to do.
        verb: &'static str,
        /// How it ended.
        status: String,
        /// What it wrote, cut to a bound.
        message: String,
    },
    /// A step did not end in time and was given up.
    #[error("{what} of container {id} took longer than {limit:?}")]
    Deadline {
        /// The container.
        id: ContainerId,
        /// Which step.
        what: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// What was asked needs another state.
    #[error("container {id} cannot {verb}: it is {state}")]
    State {
        /// The container.
        id: ContainerId,
        /// What was asked.
        verb: &'static str,
        /// In which state it is.
        state: &'static str,
    },
    /// The container uses more memory than a new limit would leave it.
    #[error("container {id} uses {used_bytes} bytes of memory, more than the limit of {limit_bytes}")]
    MemoryInUse {
        /// The container.
        id: ContainerId,
        /// What it uses and the kernel could not take back.
        used_bytes: u64,
        /// The limit that was asked for.
        limit_bytes: u64,
    },
    /// The user, group, command or working directory that the image or the specification names
    /// cannot be used.
    #[error("container {id}: {reason}")]
    Bundle {
        /// The container.
        id: ContainerId,
        /// What is wrong.
        reason: String,
    },
    /// A further process of the container could not be started.
    #[error("container {id}: the command could not be started: {reason}")]
    Start {
        /// The container.
        id: ContainerId,
        /// What the runtime said, cut to a bound.
        reason: String,
    },
    /// A file of the state folder does not say what it must.
    #[error("unreadable {}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The container was granted KVM, and the node has none.
    #[error("container {id} has KVM, and {} is not there", path.display())]
    NoKvm {
        /// The container.
        id: ContainerId,
        /// Where the device was looked for.
        path: PathBuf,
    },
    /// The OCI configuration could not be built.
    #[error("oci configuration of container {id}")]
    Spec {
        /// The container.
        id: ContainerId,
        /// What the builder said.
        #[source]
        source: Box<oci_spec::OciSpecError>,
    },
}

/// Attaches the action and path to an I/O error.
pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> RuntimeError {
    let path = path.into();
    move |source| RuntimeError::Io { action, path, source }
}
