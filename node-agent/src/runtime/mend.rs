//! A container that runs while others have deleted files of its bundle. The processes are what counts: they
//! are found again by what the runtime program keeps, and what the agent needs is written anew.

use super::{
    Bundle, Mended, OciRuntime, RuntimeError,
    cgroup::Group,
    conmon,
    create::make_folder,
    error::io,
    layout::FOLDER_MODE,
    pidfd::ProcessId,
    record::{self, Made, Record},
    spec,
    view::View,
};
use crate::storage::IdRange;
use hoody_protocol::id::ContainerId;

/// States of the runtime in which the first process has begun.
const BEGUN: [&str; 2] = ["running", "paused"];

impl OciRuntime {
    /// Makes the record of a running container anew where it is missing or unreadable. Where nothing runs,
    /// or the runtime does not know the container either, nothing is done.
    pub(super) async fn recover(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let path = self.layout.record(id);
        let lost = match Record::load(&path) {
            Ok(_) => !path.exists(),
            Err(RuntimeError::Corrupt { .. }) => true,
            Err(error) => return Err(error),
        };
        if !lost {
            return Ok(());
        }
        let state = match self.layout.runtime_state(id).exists() {
            true => self.runtime_state(id).await.filter(|state| BEGUN.contains(&state.status.as_str())),
            false => None,
        };
        let first = match &state {
            Some(state) if self.cgroups.holds(Group::Container(id), state.pid)? => ProcessId::of(state.pid)?,
            _ => None,
        };
        let (Some(state), Some(first)) = (state, first) else {
            // An unreadable record must not keep what is left from being cleared.
            return match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(source)),
                _ => Ok(()),
            };
        };
        let stop_signal = state.annotations.get(spec::STOP_SIGNAL).and_then(|number| number.parse().ok());
        let record = Record {
            boot_id: record::boot_id()?,
            ids: ids_of(first.pid)?,
            stop_signal: stop_signal.unwrap_or(libc::SIGTERM),
            // Asked only while a container is made.
            systemd: false,
            made: Some(Made { first, conmon: self.find_conmon(id)? }),
            started: true,
        };
        for folder in [self.layout.bundle(id), self.layout.exit_dir(id)] {
            make_folder(&folder, FOLDER_MODE)?;
        }
        record.save(&path)?;
        tracing::warn!(container = %id, "the record of a running container was lost and is made anew");
        Ok(())
    }

    /// Puts the rates of the disks in force again, writes the configuration again, which `exec` reads, and the folder in which conmon leaves the exit code.
    pub(super) fn mend_files(&self, bundle: &Bundle) -> Result<Mended, RuntimeError> {
        let id = bundle.id;
        let View::Live { made, .. } = self.look(id)? else {
            return Ok(Mended { files: false, disk_rates: false, monitored: true });
        };
        let mut files = false;
        let exit = self.layout.exit_dir(id);
        if !exit.exists() {
            make_folder(&exit, FOLDER_MODE)?;
            files = true;
        }
        let config = self.layout.config(id);
        if !config.exists() {
            let (spec, _) = self.plan(bundle)?;
            let text = serde_json::to_vec(&spec)
                .map_err(|error| RuntimeError::Corrupt { path: config.clone(), reason: error.to_string() })?;
            record::replace(&config, &text)?;
            files = true;
        }
        let disk_rates = self.cgroups.throttle_io(id, &self.config.disk_rates)?;
        Ok(Mended { files, disk_rates, monitored: made.is_monitored()? })
    }

    /// The container's conmon: by its file, or, where that is lost too, as the only process of its cgroup.
    fn find_conmon(&self, id: ContainerId) -> Result<Option<ProcessId>, RuntimeError> {
        if let Some(conmon) = conmon::find(id, &self.layout, &self.cgroups)? {
            return Ok(Some(conmon));
        }
        match self.cgroups.processes(Group::Conmon(id))?.first() {
            Some(pid) => ProcessId::of(*pid),
            None => Ok(None),
        }
    }
}

/// The ids of a process's user namespace, whose map has one line.
fn ids_of(pid: i32) -> Result<IdRange, RuntimeError> {
    let path = format!("/proc/{pid}/uid_map");
    let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
    let first = text.split_whitespace().nth(1).and_then(|first| first.parse().ok());
    let first = first.ok_or_else(|| RuntimeError::Corrupt { path: path.into(), reason: "no mapping".into() })?;
    Ok(IdRange { first })
}
