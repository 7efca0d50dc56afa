//! Hands the part of a container's groups that systemd manages to the container's root: the v1
//! hierarchy without controllers, and v2. Only the files named for delegation change hands (`cgroups(7)`,
//! "Delegation"); limits stay with the node.

use super::{
    super::{RuntimeError, error::io},
    Cgroups, Group, mountinfo,
};
use crate::storage::IdRange;
use hoody_protocol::id::ContainerId;
use std::os::unix::fs::{chown, lchown};

/// The kernel's own list of files that may be handed over.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// v1 has no such list.
const V1_FILES: [&str; 2] = ["cgroup.procs", "tasks"];
/// Groups that a container may make on v2, and how deep: without a bound a tenant fills kernel
/// memory. A Debian system with desktop uses about a hundred, eight deep.
const MAX_DESCENDANTS: &str = "2048";
const MAX_DEPTH: &str = "32";

impl Cgroups {
    /// Hands the container's groups to its root.
    pub(in super::super) fn delegate(&self, id: ContainerId, ids: IdRange) -> Result<(), RuntimeError> {
        for hierarchy in &self.hierarchies {
            if !hierarchy.unified && !hierarchy.has(mountinfo::SYSTEMD) {
                continue;
            }
            let folder = self.folder(hierarchy, Group::Container(id));
            let files = match hierarchy.unified {
                true => std::fs::read_to_string(DELEGATE).map_err(io("read", DELEGATE))?,
                false => V1_FILES.join("\n"),
            };
            chown(&folder, Some(ids.first), Some(ids.first)).map_err(io("chown", &folder))?;
            for name in files.lines() {
                let path = folder.join(name);
                match lchown(&path, Some(ids.first), Some(ids.first)) {
                    Ok(()) => {}
                    // A file of a controller that is not enabled here.
                    Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                    Err(source) => return Err(io("chown", path)(source)),
                }
            }
            if hierarchy.unified {
                for (name, value) in [("cgroup.max.descendants", MAX_DESCENDANTS), ("cgroup.max.depth", MAX_DEPTH)] {
                    let path = folder.join(name);
                    std::fs::write(&path, value).map_err(io("write", path))?;
                }
            }
        }
        Ok(())
    }
}
