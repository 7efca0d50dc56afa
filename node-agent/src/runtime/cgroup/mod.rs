//! The control groups of containers and their conmons, in whatever hierarchies the node has: the one
//! of cgroup v2, the many of v1, or both (hybrid, where v2 has no controllers).
//!
//! Below the configured parent each container has a group named by its id, and its conmon one named
//! `conmon-<id>`. The container's exists in every hierarchy, because the runtime makes it there; conmon's
//! in one only ([`Cgroups::tracking`]): it is for finding and ending it, not for limits, and every
//! further hierarchy costs a migration of the process.

mod delegate;
mod exec;
mod freezer;
mod joins;
mod mountinfo;
mod own;
mod stats;
mod throttle;
pub(in crate::runtime) mod tree;
mod weight;

pub(in crate::runtime) use exec::ExecGroup;
pub(in crate::runtime) use joins::{Joins, Ready};
pub(crate) use own::{OwnGroup, OwnLimits, Reached};

use super::{RuntimeError, error::io, spawn::Membership};
use hoody_protocol::id::ContainerId;
use mountinfo::Hierarchy;
use stats::keyed;
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

const MOUNTINFO: &str = "/proc/self/mountinfo";
const CONMON_PREFIX: &str = "conmon-";

/// All cgroup hierarchies of the node, and our place in them.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    parent: PathBuf,
}

/// One of the groups below the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The container's processes.
    Container(ContainerId),
    /// Its conmon, and what conmon starts before the container exists.
    Conmon(ContainerId),
}

impl Group {
    fn name(self) -> String {
        match self {
            Self::Container(id) => id.to_string(),
            Self::Conmon(id) => format!("{CONMON_PREFIX}{id}"),
        }
    }

    fn parse(name: &str) -> Option<ContainerId> {
        name.strip_prefix(CONMON_PREFIX).unwrap_or(name).parse().ok()
    }
}

impl Cgroups {
    /// Finds the mounted hierarchies.
    pub(super) fn detect(parent: &Path) -> Result<Self, RuntimeError> {
        let text = std::fs::read_to_string(MOUNTINFO).map_err(io("read", MOUNTINFO))?;
        let hierarchies = mountinfo::parse(&text);
        if hierarchies.is_empty() {
            return Err(RuntimeError::Config { reason: "no cgroup hierarchy is mounted".into() });
        }
        Ok(Self { hierarchies, parent: parent.into() })
    }

    /// The container's group as the OCI configuration names it.
    pub(super) fn oci_path(&self, id: ContainerId) -> PathBuf {
        self.parent.join(Group::Container(id).name())
    }

    /// What keeps the kernel ready for joins.
    pub(super) fn joins(&self) -> Joins {
        Joins::new(self.tracking().clone())
    }

    /// Makes conmon's group; returns how conmon comes into it.
    pub(super) fn make_conmon(&self, id: ContainerId) -> Result<Membership, RuntimeError> {
        let hierarchy = self.tracking();
        let folder = self.folder(hierarchy, Group::Conmon(id));
        std::fs::create_dir_all(&folder).map_err(io("create cgroup", &folder))?;
        if hierarchy.unified {
            return File::open(&folder).map(Membership::Made).map_err(io("open", folder));
        }
        let procs = folder.join("cgroup.procs");
        File::options().write(true).open(&procs).map(Membership::Joins).map_err(io("open", procs))
    }

    /// True where the process is in the group, which nobody but root could have put it in.
    pub(super) fn holds(&self, group: Group, pid: i32) -> Result<bool, RuntimeError> {
        self.processes(group).map(|pids| pids.contains(&pid))
    }

    /// The processes of a group and the groups below it.
    pub(super) fn processes(&self, group: Group) -> Result<BTreeSet<i32>, RuntimeError> {
        tree::processes(&self.folder(self.tracking(), group))
    }

    /// Kills every process in the group, in every hierarchy; returns how many were there. Frozen ones
    /// die when they are thawed.
    pub(super) fn kill(&self, group: Group) -> Result<usize, RuntimeError> {
        let mut killed = 0;
        for hierarchy in &self.hierarchies {
            killed += tree::kill(&self.folder(hierarchy, group))?;
        }
        Ok(killed)
    }

    /// Removes the group and all below it from every hierarchy; true where nothing is left. False
    /// where a process still holds it: try again.
    pub(super) fn remove(&self, group: Group) -> Result<bool, RuntimeError> {
        let mut gone = true;
        for hierarchy in &self.hierarchies {
            gone &= tree::remove(&self.folder(hierarchy, group))?;
        }
        Ok(gone)
    }

    /// Every container that has a group of either kind in any hierarchy.
    pub(super) fn inventory(&self) -> Result<BTreeSet<ContainerId>, RuntimeError> {
        let mut found = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            let parent = hierarchy.folder(&self.parent);
            let entries = match std::fs::read_dir(&parent) {
                Ok(entries) => entries,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(io("list", parent)(source)),
            };
            for entry in entries {
                let entry = entry.map_err(io("list", &parent))?;
                found.extend(entry.file_name().to_str().and_then(Group::parse));
            }
        }
        Ok(found)
    }

    /// The hierarchy in which processes are counted as ours: v2 where there is one, otherwise systemd's
    /// (which has no controller and so no side effect), otherwise any.
    fn tracking(&self) -> &Hierarchy {
        let unified = self.hierarchies.iter().find(|hierarchy| hierarchy.unified);
        let named = || self.hierarchies.iter().find(|hierarchy| hierarchy.has(mountinfo::SYSTEMD));
        // `detect` refuses an empty list.
        unified.or_else(named).unwrap_or(&self.hierarchies[0])
    }

    /// True where v2 limits containers, and v1 nothing.
    pub(super) fn is_unified(&self) -> bool {
        let v2 = |controller| self.controlling(controller).is_some_and(|hierarchy| hierarchy.unified);
        ["cpu", "memory", "pids"].into_iter().all(v2)
    }

    /// Where `controller` is; v2 has them all in one place.
    fn controlling(&self, controller: &str) -> Option<&Hierarchy> {
        let v1 = self.hierarchies.iter().find(|hierarchy| hierarchy.has(controller));
        v1.or_else(|| self.hierarchies.iter().find(|hierarchy| hierarchy.unified))
    }

    fn folder(&self, hierarchy: &Hierarchy, group: Group) -> PathBuf {
        hierarchy.folder(&self.parent).join(group.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_recognised_by_name() {
        let id = ContainerId::from_bytes([9; 12]);
        assert_eq!(Group::parse(&Group::Container(id).name()), Some(id));
        assert_eq!(Group::parse(&Group::Conmon(id).name()), Some(id));
        for other in ["cgroup.procs", "conmon-", "conmon-x", "system.slice"] {
            assert_eq!(Group::parse(other), None, "{other}");
        }
    }

    #[test]
    fn controllers_are_found_in_v1_before_v2() {
        let cgroups = Cgroups {
            hierarchies: mountinfo::parse(include_str!("testdata/mountinfo-hybrid")),
            parent: "/hoody/n".into(),
        };
        assert!(cgroups.tracking().unified && !cgroups.is_unified());
        assert!(!cgroups.controlling("memory").unwrap().unified);
        assert_eq!(
            cgroups.oci_path(ContainerId::from_bytes([0; 12])).to_str(),
            Some("/hoody/n/000000000000000000000000")
        );
        let cgroups = Cgroups {
            hierarchies: mountinfo::parse(include_str!("testdata/mountinfo-unified")),
            parent: "/hoody/n".into(),
        };
        assert!(cgroups.controlling("memory").unwrap().unified && cgroups.is_unified());
    }
}
