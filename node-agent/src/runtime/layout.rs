//! Where the files of a container are. One folder per container holds its bundle, so that deleting
//! that folder, last, deletes all that says the container was there.
//!
//! ```text
//! <run_dir>/runtime/                 the OCI runtime's own state (its --root)
//! <run_dir>/containers/<id>/         the bundle: config.json, and
//!     record.json                    what this module needs to know again after a restart
//!     pid, conmon.pid                written by the runtime and conmon
//!     exit/<id>                      exit code, written by conmon
//!     devices/                       where it has KVM: a small tmpfs with its `kvm` node
//!     etc/                           a small tmpfs: resolv.conf, hosts, hostname
//! <log_dir>/<id>.log                 output
//! ```
//!
//! The folders are 0711: the runtime's first stage inside the user namespace passes through them.

use hoody_protocol::id::ContainerId;
use std::path::{Path, PathBuf};

/// Mode of the state folders.
pub(super) const FOLDER_MODE: u32 = 0o711;

/// Paths derived from the two configured folders.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    run_dir: PathBuf,
    log_dir: PathBuf,
}

impl Layout {
    pub(super) fn new(run_dir: &Path, log_dir: &Path) -> Self {
        Self { run_dir: run_dir.into(), log_dir: log_dir.into() }
    }

    pub(super) fn runtime_root(&self) -> PathBuf {
        self.run_dir.join("runtime")
    }

    /// The runtime's own state of one container.
    pub(super) fn runtime_state(&self, id: ContainerId) -> PathBuf {
        self.runtime_root().join(id.to_string())
    }

    pub(super) fn containers(&self) -> PathBuf {
        self.run_dir.join("containers")
    }

    pub(super) fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    pub(super) fn bundle(&self, id: ContainerId) -> PathBuf {
        self.containers().join(id.to_string())
    }

    pub(super) fn config(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("config.json")
    }

    pub(super) fn record(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("record.json")
    }

    pub(super) fn pid_file(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("pid")
    }

    pub(super) fn conmon_pid_file(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("conmon.pid")
    }

    pub(super) fn exit_dir(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("exit")
    }

    pub(super) fn exit_file(&self, id: ContainerId) -> PathBuf {
        self.exit_dir(id).join(id.to_string())
    }

    /// conmon leaves this empty file where it saw the kernel end something for lack of memory.
    pub(super) fn oom_file(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("oom")
    }

    pub(super) fn etc(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("etc")
    }

    /// The mount point of the tmpfs with device nodes of the container's own.
    pub(super) fn devices(&self, id: ContainerId) -> PathBuf {
        self.bundle(id).join("devices")
    }

    pub(super) fn log(&self, id: ContainerId) -> PathBuf {
        self.log_dir.join(format!("{id}.log"))
    }

    /// The container whose log this file name is.
    pub(super) fn log_owner(name: &str) -> Option<ContainerId> {
        name.split_once(".log")?.0.parse().ok()
    }
}
