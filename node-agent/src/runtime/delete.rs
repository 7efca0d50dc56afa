//! Removes all of a container, from every state: running, half-made, or with a record that cannot be
//! read. The bundle folder goes last, so that what an interrupted call left is still found.

use super::{OciRuntime, RuntimeError, cgroup::Group, conmon, error::io, etc, record::Record};
use hoody_protocol::id::ContainerId;
use std::{io::ErrorKind, path::Path, time::Duration};
use tokio::time::Instant;

/// How long conmon has to notice the end and go by itself.
const CONMON_LIMIT: Duration = Duration::from_secs(2);
/// How long the runtime's `delete` has; some wait for processes inside.
const RUNTIME_LIMIT: Duration = Duration::from_secs(15);
/// How long the kernel has to let killed processes go, so that their cgroups can be removed.
const CGROUP_LIMIT: Duration = Duration::from_secs(15);
/// Between two tries.
const CGROUP_PAUSE: Duration = Duration::from_millis(5);

impl OciRuntime {
    pub(super) async fn delete_container(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let made = match Record::load(&self.layout.record(id)) {
            Ok(record) => record.and_then(|record| record.made),
            Err(error) => {
                // Deleting must work all the same: cgroups say which processes are meant.
                tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "unreadable record");
                None
            }
        };
        self.kill_container(id, made.map(|made| made.first)).await?;
        hoody_fault::point!("processes.killed");
        self.end_conmon(id, made.and_then(|made| made.conmon)).await?;
        hoody_fault::point!("conmon.ended");
        if self.layout.runtime_state(id).exists() {
            let args = vec!["delete".into(), "--force".into(), id.to_string().into()];
            if let Err(error) = self.call(id, "delete", args, Vec::new(), RUNTIME_LIMIT).await {
                // What the runtime could not remove is removed below.
                tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "runtime delete");
            }
        }
        hoody_fault::point!("runtime.deleted");
        self.remove_cgroups(id).await?;
        hoody_fault::point!("cgroups.removed");
        etc::unmount(&self.layout.etc(id))?;
        etc::unmount(&self.layout.devices(id))?;
        remove_folder(&self.layout.runtime_state(id))?;
        remove_folder(&self.layout.bundle(id))
    }

    /// True where anything of the container is left that [`Self::delete_container`] removes.
    pub(super) fn has_remains(&self, id: ContainerId) -> Result<bool, RuntimeError> {
        let files = [self.layout.bundle(id), self.layout.runtime_state(id)].iter().any(|path| path.exists());
        Ok(files || self.cgroups.inventory()?.contains(&id))
    }

    /// conmon ends by itself once the first process did. One that never had a first process is killed
    /// at once, together with a runtime that it still runs.
    async fn end_conmon(&self, id: ContainerId, known: Option<super::pidfd::ProcessId>) -> Result<(), RuntimeError> {
        let found = match known {
            Some(conmon) => conmon.open()?,
            None => None,
        };
        if let Some(handle) = found
            && !handle.ended_within(CONMON_LIMIT).await?
        {
            tracing::warn!(container = %id, "conmon stays after the end of its container and is killed");
        }
        if let Some(conmon) = conmon::find(id, &self.layout, &self.cgroups)? {
            conmon.signal(libc::SIGKILL)?;
        }
        self.blocking(move |runtime| runtime.cgroups.kill(Group::Conmon(id)).map(drop)).await
    }

    async fn remove_cgroups(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let started = Instant::now();
        for group in [Group::Container(id), Group::Conmon(id)] {
            while !self.blocking(move |runtime| runtime.cgroups.remove(group)).await? {
                if started.elapsed() > CGROUP_LIMIT {
                    return Err(RuntimeError::Deadline { id, what: "removing cgroups", limit: CGROUP_LIMIT });
                }
                // A process may have entered since: `exec` of a runtime that was just starting.
                self.blocking(move |runtime| runtime.cgroups.kill(group)).await?;
                tokio::time::sleep(CGROUP_PAUSE).await;
            }
        }
        Ok(())
    }

    /// conmon writes a temporary file beside the log while it starts over.
    pub(super) fn remove_logs(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let log = self.layout.log(id);
        let parts = crate::logs::Files::new(self.layout.log_dir(), id).all();
        for path in parts.into_iter().chain([log.with_extension("log.tmp")]) {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => return Err(io("remove", path)(source)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn remove_folder(path: &Path) -> Result<(), RuntimeError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(io("remove", path)(source)),
        _ => Ok(()),
    }
}
