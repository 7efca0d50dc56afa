//! A group below the container's for each further process that the agent looks after, so that it and all that it
//! started are found and ended together. In one hierarchy only: limits are the container's.

use super::{
    super::{RuntimeError, error::io},
    Cgroups, Group, Hierarchy,
    mountinfo::SYSTEMD,
    tree,
};
use hoody_protocol::id::ContainerId;
use std::path::PathBuf;

const PREFIX: &str = "hoody-exec-";

/// A group for one process.
#[derive(Debug)]
pub(in crate::runtime) struct ExecGroup {
    /// Its folder.
    pub(in crate::runtime) folder: PathBuf,
    /// As the runtime's `exec --cgroup` takes it.
    pub(in crate::runtime) argument: String,
}

impl Cgroups {
    /// Makes a group below that of a running container.
    pub(in crate::runtime) fn make_exec(&self, id: ContainerId, name: &str) -> Result<ExecGroup, RuntimeError> {
        let name = format!("{PREFIX}{name}");
        let (hierarchy, argument) = match self.exec_hierarchy() {
            hierarchy if hierarchy.unified => (hierarchy, name.clone()),
            hierarchy => (hierarchy, format!("{SYSTEMD}:{name}")),
        };
        let folder = self.folder(hierarchy, Group::Container(id)).join(name);
        // Not its parents: where the container is just being removed, there is nothing to run in.
        std::fs::create_dir(&folder).map_err(io("create cgroup", &folder))?;
        Ok(ExecGroup { folder, argument })
    }

    /// Ends and removes the groups of agents before this one; how many there were. A frozen one stays until its
    /// container is thawed or removed.
    pub(in crate::runtime) fn sweep_execs(&self, id: ContainerId) -> Result<usize, RuntimeError> {
        let folder = self.folder(self.exec_hierarchy(), Group::Container(id));
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(0) };
        let mut swept = 0;
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                tree::kill(&entry.path())?;
                tree::remove(&entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// The runtime puts processes into groups of v1 where there are any; of these systemd's has no controller.
    fn exec_hierarchy(&self) -> &Hierarchy {
        self.hierarchies.iter().find(|hierarchy| hierarchy.has(SYSTEMD)).unwrap_or_else(|| self.tracking())
    }
}
