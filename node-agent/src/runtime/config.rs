//! Settings of the runtime capability. Everything that has a name on the machine is a value here, so
//! that several agents can share one kernel.

use super::RuntimeError;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// The least size of a container's log that is accepted, bytes: conmon needs room for a line.
pub(super) const MIN_LOG_BYTES: u64 = 64 << 10;

/// Settings of [`super::OciRuntime`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The OCI runtime: a file name looked up in `PATH`, or an absolute path.
    #[serde(default = "default_program")]
    pub program: PathBuf,
    /// conmon, likewise.
    #[serde(default = "default_conmon")]
    pub conmon: PathBuf,
    /// A statically linked init for images without one: catatonit, or tini (which lacks catatonit's
    /// `-P`, so that an image without an init then needs a command).
    #[serde(default = "default_init")]
    pub init: PathBuf,
    /// The agent's program, which looks after each further process of a container (see
    /// [`super::exec_monitor`]).
    #[serde(default = "default_monitor")]
    pub monitor: PathBuf,
    /// State that is worthless after a reboot: bundles, the runtime's own state, exit codes. Below
    /// `/run` in production.
    pub run_dir: PathBuf,
    /// Where containers' output is kept.
    pub log_dir: PathBuf,
    /// Parent of all cgroups of this agent, absolute within each hierarchy, for example `/hoody/node`.
    pub cgroup_parent: PathBuf,
    /// Size at which a container's log starts over, bytes.
    #[serde(default = "default_log_max_bytes")]
    pub log_max_bytes: u64,
    /// What each container may read and write.
    #[serde(default)]
    pub disk_rates: DiskRates,
}

/// The most that one container may read and write per second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskRates {
    /// `major:minor` of the disks that the rates hold for, each by itself.
    pub devices: Vec<String>,
    /// Bytes per second; 0: not limited.
    pub read_bytes: u64,
    /// Bytes per second; 0: not limited.
    pub write_bytes: u64,
}

fn default_program() -> PathBuf {
    "runc".into()
}

fn default_conmon() -> PathBuf {
    "conmon".into()
}

fn default_init() -> PathBuf {
    "/usr/bin/catatonit".into()
}

/// This program; right also after the file was replaced by an upgrade.
fn default_monitor() -> PathBuf {
    "/proc/self/exe".into()
}

fn default_log_max_bytes() -> u64 {
    16 << 20
}

impl RuntimeConfig {
    /// Settings with default programs.
    pub fn new(run_dir: impl Into<PathBuf>, log_dir: impl Into<PathBuf>, cgroup_parent: impl Into<PathBuf>) -> Self {
        Self {
            program: default_program(),
            conmon: default_conmon(),
            init: default_init(),
            monitor: default_monitor(),
            run_dir: run_dir.into(),
            log_dir: log_dir.into(),
            cgroup_parent: cgroup_parent.into(),
            log_max_bytes: default_log_max_bytes(),
            disk_rates: DiskRates::default(),
        }
    }

    /// Refuses what would make paths mean something else than they say.
    pub fn validate(&self) -> Result<(), RuntimeError> {
        let refuse = |reason: String| Err(RuntimeError::Config { reason });
        for (name, path) in [("run_dir", &self.run_dir), ("log_dir", &self.log_dir), ("init", &self.init)] {
            if !is_plain_absolute(path) {
                return refuse(format!("{name} {} is not a plain absolute path", path.display()));
            }
        }
        let parent = &self.cgroup_parent;
        let named = parent.components().skip(1).all(|part| {
            let text = part.as_os_str().as_encoded_bytes();
            !text.starts_with(b".") && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        });
        if !is_plain_absolute(parent) || !named {
            return refuse(format!("cgroup_parent {} is not a plain absolute path", parent.display()));
        }
        if self.log_max_bytes < MIN_LOG_BYTES {
            return refuse(format!("log_max_bytes is below {MIN_LOG_BYTES}"));
        }
        Ok(())
    }
}

/// Absolute, not the root itself, and nothing but ordinary names.
fn is_plain_absolute(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_parent(parent: &str) -> RuntimeConfig {
        RuntimeConfig::new("/run/a", "/var/log/a", parent)
    }

    #[test]
    fn only_plain_cgroup_parents_are_accepted() {
        assert!(with_parent("/hoody/node-1").validate().is_ok());
        for bad in ["/", "hoody", "/hoody/../system.slice", "/ho ody", "", "/hoody/.x"] {
            assert!(with_parent(bad).validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folders_must_be_absolute_and_logs_bounded() {
        let good = with_parent("/h");
        assert!(RuntimeConfig { run_dir: "run".into(), ..good.clone() }.validate().is_err());
        assert!(RuntimeConfig { log_dir: "/a/../b".into(), ..good.clone() }.validate().is_err());
        assert!(RuntimeConfig { log_max_bytes: 1, ..good }.validate().is_err());
    }
}
