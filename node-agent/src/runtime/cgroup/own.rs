//! A control group of the agent's own programs: for finding and ending whatever they started, however it forked.

use super::{Cgroups, RuntimeError, io, tree};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// One group, in the hierarchy that processes are found by.
#[derive(Debug, Clone)]
pub(crate) struct OwnGroup(PathBuf);

impl OwnGroup {
    /// The group at this path, absolute within its hierarchy; it need not be there.
    pub(crate) fn at(path: &Path) -> Result<Self, RuntimeError> {
        let cgroups = Cgroups::detect(path)?;
        Ok(Self(cgroups.tracking().folder(path)))
    }

    /// A group below this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    /// Makes the group; gives the file into which a process writes 0 to join it.
    pub(crate) fn make(&self) -> Result<PathBuf, RuntimeError> {
        std::fs::create_dir_all(&self.0).map_err(io("create cgroup", &self.0))?;
        Ok(self.0.join("cgroup.procs"))
    }

    /// Every process in the group and below.
    pub(crate) fn processes(&self) -> Result<BTreeSet<i32>, RuntimeError> {
        tree::processes(&self.0)
    }

    /// Kills every process in the group and below; returns how many there were.
    pub(crate) fn kill(&self) -> Result<usize, RuntimeError> {
        tree::kill(&self.0)
    }

    /// Removes the group and all below it; false where a process still holds one of them.
    pub(crate) fn remove(&self) -> Result<bool, RuntimeError> {
        tree::remove(&self.0)
    }
}
