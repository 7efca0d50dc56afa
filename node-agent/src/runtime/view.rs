//! What is known of a container right now, read from its record, `/proc`, the exit file and the cgroup
//! freezer. No program is run: this is asked often.

use super::{
    Process, RuntimeError,
    cgroup::Cgroups,
    error::io,
    layout::Layout,
    record::{Made, Record},
};
use hoody_protocol::id::ContainerId;
use std::time::Duration;
use tokio::time::Instant;

/// How long conmon has, after the first process ended, to write the exit code.
const EXIT_FILE_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks for it; it takes conmon about a millisecond.
const EXIT_FILE_PAUSE: Duration = Duration::from_millis(2);
/// The runtime's pipe on which the first process waits for `start`. runc and crun have it.
pub(super) const START_PIPE: &str = "exec.fifo";

/// A container as found.
#[derive(Debug)]
pub(super) enum View {
    /// No first process was made, or it ended before it was started. Remains may lie around.
    None,
    /// The first process is there.
    Live { record: Record, made: Made, phase: Phase },
    /// The first process ran and ended.
    Ended { made: Made },
}

/// How far a live container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running,
    Paused,
}

impl View {
    pub(super) fn look(id: ContainerId, layout: &Layout, cgroups: &Cgroups) -> Result<Self, RuntimeError> {
        let Some(record) = Record::load(&layout.record(id))? else { return Ok(Self::None) };
        let Some(made) = record.made else { return Ok(Self::None) };
        if !made.first.is_alive()? {
            return Ok(if record.started { Self::Ended { made } } else { Self::None });
        }
        // The start was attempted, but perhaps did not come to pass: then the process still waits.
        let waits = !record.started || layout.runtime_state(id).join(START_PIPE).exists();
        let phase = match waits {
            true => Phase::Created,
            false if cgroups.is_frozen(id)? => Phase::Paused,
            false => Phase::Running,
        };
        Ok(Self::Live { record, made, phase })
    }

    /// A word for errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::None => "absent",
            Self::Ended { .. } => "exited",
            Self::Live { phase: Phase::Created, .. } => "created",
            Self::Live { phase: Phase::Running, .. } => "running",
            Self::Live { phase: Phase::Paused, .. } => "paused",
        }
    }

    /// In the terms of the trait.
    pub(super) async fn process(
        self,
        id: ContainerId,
        layout: &Layout,
        cgroups: &Cgroups,
    ) -> Result<Process, RuntimeError> {
        Ok(match self {
            Self::None => Process::Absent,
            Self::Live { made, phase, .. } => {
                let pid = made.first.pid;
                match phase {
                    Phase::Created => Process::Created { pid },
                    Phase::Running => Process::Running { pid },
                    Phase::Paused => Process::Paused { pid },
                }
            }
            Self::Ended { made } => {
                let code = exit_code(id, layout, &made).await?;
                let oom_killed = layout.oom_file(id).exists() || cgroups.oom_kills(id)? > 0;
                Process::Exited { code, oom_killed }
            }
        })
    }
}

/// The code that conmon left; waits a moment while it may still come. `None` where it was lost.
pub(super) async fn exit_code(id: ContainerId, layout: &Layout, made: &Made) -> Result<Option<i32>, RuntimeError> {
    let path = layout.exit_file(id);
    let started = Instant::now();
    loop {
        // Asked before the file: a conmon that has ended by now has written it by then.
        let may_come = made.is_monitored()? && started.elapsed() < EXIT_FILE_LIMIT;
        match std::fs::read_to_string(&path) {
            // conmon renames the finished file into place.
            Ok(text) => return Ok(text.trim().parse().ok()),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(io("read", path)(source)),
        }
        if !may_come {
            return Ok(None);
        }
        tokio::time::sleep(EXIT_FILE_PAUSE).await;
    }
}
