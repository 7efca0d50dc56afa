//! What runs in a container right now, as its owner sees it: processes, sockets that listen, services of systemd.
//!
//! Looked at from outside, in `/proc`, so that nothing inside has to help or can lie about more than its own names; only
//! systemd's services are asked of the container's own `systemctl`. A tenant can have thousands of processes that come
//! and go while they are read: everything is bounded, and what is read of a process is read through its open folder.

mod processes;
mod services;
mod sockets;

use super::{
    OciRuntime, RuntimeError,
    cgroup::Group,
    error::io,
    record::{Made, Record},
    rootfs::Rootfs,
    user,
    view::{Phase, View},
};
use hoody_protocol::{
    bounded::{List, Text},
    id::ContainerId,
    inspection::Inspection,
};
use oci_spec::runtime::Spec;
use processes::Processes;
use std::{collections::HashMap, fs::File, io::Read, os::fd::OwnedFd, path::Path, time::Duration};

/// Containers that are looked at at once on a node.
pub(super) const AT_ONCE: usize = 4;
/// The whole time of one look, the wait for a turn included. A look that the kernel keeps goes on without anybody, and
/// keeps its turn.
const LIMIT: Duration = Duration::from_millis(2500);

/// Names of a container's users.
#[derive(Debug, Default)]
struct Names(HashMap<u32, String>);

impl Names {
    /// The user's name, or the number where it has none.
    fn of(&self, uid: u32) -> Text<64> {
        self.0.get(&uid).map_or_else(|| Text::truncated(uid.to_string()), |name| Text::printable(name))
    }
}

impl OciRuntime {
    pub(super) async fn inspect_container(&self, id: ContainerId) -> Result<Option<Inspection>, RuntimeError> {
        let (record, made, phase) = match self.look(id)? {
            View::Live { phase: Phase::Created, .. } | View::None | View::Ended { .. } => return Ok(None),
            View::Live { record, made, phase } => (record, made, phase),
        };
        let systemd = record.systemd && phase == Phase::Running;
        let look = async {
            // Closed never: the semaphore lives as long as the runtime.
            let turn = self.inspections.clone().acquire_owned().await.ok();
            // First, so that the program that asks is not among the processes.
            let services = if systemd { services::list(self, id).await } else { None };
            let seen = self.blocking(move |runtime| {
                let _turn = turn;
                runtime.look_inside(id, &record, &made)
            });
            (seen.await, services)
        };
        let late = |_elapsed| RuntimeError::Deadline { id, what: "inspection", limit: LIMIT };
        let (seen, services) = tokio::time::timeout(LIMIT, look).await.map_err(late)?;
        let mut inspection = seen?;
        if let Some((services, more)) = services {
            inspection.services = Some(services);
            inspection.truncated |= more;
        }
        Ok(Some(inspection))
    }

    fn look_inside(&self, id: ContainerId, record: &Record, made: &Made) -> Result<Inspection, RuntimeError> {
        let names = self.names(id)?;
        let members = || self.cgroups.processes(Group::Container(id));
        let held = Processes::open(members, record.ids)?;
        let (processes, mut truncated) = held.describe(&names);
        let (sockets, more) = sockets::listening(&held, made.first.pid, record.ids, &names);
        truncated |= more;
        Ok(Inspection {
            processes: bounded(processes),
            process_count: held.count(),
            sockets: bounded(sockets),
            services: None,
            truncated,
        })
    }

    /// From the container's `/etc/passwd`, of which the first megabyte counts.
    fn names(&self, id: ContainerId) -> Result<Names, RuntimeError> {
        let path = self.layout.config(id);
        let text = std::fs::read(&path).map_err(io("read", &path))?;
        let corrupt = |reason: String| RuntimeError::Corrupt { path: path.clone(), reason };
        let spec: Spec = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        let root = spec.root().as_ref().ok_or_else(|| corrupt("no root".into()))?.path();
        let passwd = Rootfs::open(root)?.read("/etc/passwd")?.unwrap_or_default();
        let mut names = HashMap::new();
        for (name, uid) in user::names(&passwd) {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
        Ok(Names(names))
    }
}

/// Any text as what is read of a container while it is looked at, for fuzzing.
pub(crate) fn fuzzing(text: &str) {
    services::fuzzing(text);
    processes::fuzzing(text);
    sockets::fuzzing(text);
}

/// As many as the message takes; callers bound their lists by the same number.
fn bounded<T, const MAX: usize>(mut items: Vec<T>) -> List<T, MAX> {
    items.truncate(MAX);
    List::try_from(items).unwrap_or_default()
}

/// The first `max` bytes of a file below an open folder; `None` where it, or the process, is gone.
fn read(folder: &OwnedFd, name: &str, max: u64) -> Option<Vec<u8>> {
    use nix::fcntl::{OFlag, openat};
    let file =
        openat(folder, Path::new(name), OFlag::O_RDONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
