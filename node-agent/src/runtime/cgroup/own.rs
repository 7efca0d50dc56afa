//! A control group of the agent's own programs: whatever they started is found and ended together, however it forked,
//! and has limits as a whole. On v1 and hybrid nodes it exists in the hierarchy that processes are found by and in
//! those of the limits' controllers.

use super::{Cgroups, Hierarchy, RuntimeError, io, keyed, tree};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

const MEMORY: &str = "memory";
const PIDS: &str = "pids";
/// v2 only: what the groups below one may limit.
const SUBTREE: &str = "cgroup.subtree_control";

/// What all processes of a group may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnLimits {
    /// Memory; there is no swap beyond it.
    pub(crate) memory_bytes: u64,
    /// Processes and threads.
    pub(crate) processes: u32,
}

impl OwnLimits {
    /// The memory in MiB, for people.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.memory_bytes >> 20
    }
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The kernel ended processes for lack of memory.
    Memory,
    /// Processes were not started.
    Processes,
}

/// One group.
#[derive(Debug, Clone)]
pub(crate) struct OwnGroup {
    path: PathBuf,
    tracking: Hierarchy,
    memory: Hierarchy,
    pids: Hierarchy,
}

impl OwnGroup {
    /// The group at this path, absolute within its hierarchies; it need not be there.
    pub(crate) fn at(path: &Path) -> Result<Self, RuntimeError> {
        let cgroups = Cgroups::detect(path)?;
        let controlling = |name: &str| {
            let missing = || RuntimeError::Config { reason: format!("no cgroup hierarchy limits {name}") };
            cgroups.controlling(name).cloned().ok_or_else(missing)
        };
        let (memory, pids) = (controlling(MEMORY)?, controlling(PIDS)?);
        Ok(Self { path: path.to_owned(), tracking: cgroups.tracking().clone(), memory, pids })
    }

    /// A group below this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self { path: self.path.join(name), ..self.clone() }
    }

    /// Makes the group with its limits; gives the files into each of which a process writes 0 to join it.
    pub(crate) fn make(&self, limits: &OwnLimits) -> Result<Vec<File>, RuntimeError> {
        for folder in self.folders() {
            std::fs::create_dir_all(&folder).map_err(io("create cgroup", &folder))?;
        }
        self.limit_memory(limits.memory_bytes)?;
        self.delegate(&self.pids, PIDS)?;
        write(&self.pids.folder(&self.path).join("pids.max"), limits.processes.to_string())?;
        let open = |folder: PathBuf| {
            let procs = folder.join("cgroup.procs");
            File::options().write(true).open(&procs).map_err(io("open", procs))
        };
        self.folders().into_iter().map(open).collect()
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), RuntimeError> {
        self.delegate(&self.memory, MEMORY)?;
        let folder = self.memory.folder(&self.path);
        let bytes = bytes.to_string();
        if self.memory.unified {
            write(&folder.join("memory.max"), bytes)?;
            write_where_there(&folder.join("memory.swap.max"), "0")?;
            // One process that is ended leaves the others with half of the work.
            return write(&folder.join("memory.oom.group"), "1".to_owned());
        }
        write(&folder.join("memory.limit_in_bytes"), bytes.clone())?;
        write_where_there(&folder.join("memory.memsw.limit_in_bytes"), &bytes)
    }

    /// v2: every group above must hand the controller down; v1 has all of it everywhere.
    fn delegate(&self, hierarchy: &Hierarchy, controller: &str) -> Result<(), RuntimeError> {
        if !hierarchy.unified {
            return Ok(());
        }
        let above: Vec<&Path> = self.path.ancestors().skip(1).collect();
        for group in above.into_iter().rev() {
            let file = hierarchy.folder(group).join(SUBTREE);
            let handed = std::fs::read_to_string(&file).map_err(io("read", &file))?;
            if !handed.split_whitespace().any(|name| name == controller) {
                write(&file, format!("+{controller}"))?;
            }
        }
        Ok(())
    }

    /// The limit that was reached; the kernel counts while the group is there.
    pub(crate) fn reached(&self) -> Option<Reached> {
        let count = |hierarchy: &Hierarchy, file: &str, key: &str| {
            let text = std::fs::read_to_string(hierarchy.folder(&self.path).join(file)).unwrap_or_default();
            keyed(&text, key).unwrap_or(0)
        };
        let events = if self.memory.unified { "memory.events" } else { "memory.oom_control" };
        if count(&self.memory, events, "oom_kill") > 0 {
            return Some(Reached::Memory);
        }
        (count(&self.pids, "pids.events", "max") > 0).then_some(Reached::Processes)
    }

    /// Every process in the group and below.
    pub(crate) fn processes(&self) -> Result<BTreeSet<i32>, RuntimeError> {
        tree::processes(&self.tracked())
    }

    /// Kills every process in the group and below; returns how many there were.
    pub(crate) fn kill(&self) -> Result<usize, RuntimeError> {
        tree::kill(&self.tracked())
    }

    /// Removes the group and all below it; false where a process still holds one of them.
    pub(crate) fn remove(&self) -> Result<bool, RuntimeError> {
        let mut gone = true;
        for folder in self.folders() {
            gone &= tree::remove(&folder)?;
        }
        Ok(gone)
    }

    fn tracked(&self) -> PathBuf {
        self.tracking.folder(&self.path)
    }

    /// Where it is, each place once.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        [&self.tracking, &self.memory, &self.pids].map(|hierarchy| hierarchy.folder(&self.path)).into()
    }
}

fn write(path: &Path, text: String) -> Result<(), RuntimeError> {
    std::fs::write(path, text).map_err(io("write", path))
}

/// Kernels without accounting of swap have no file for it.
fn write_where_there(path: &Path, text: &str) -> Result<(), RuntimeError> {
    if !path.exists() {
        return Ok(());
    }
    write(path, text.to_owned())
}
