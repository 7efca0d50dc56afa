//! [`Runtime`] by an OCI runtime program and conmon. Holds no state of its own beyond settings: all is
//! read anew from the system on each call, so a restarted agent knows as much as one that never
//! stopped. Calls for one container come one at a time, from the task that owns it; `wait` and `inspect` may run
//! beside.

use super::{
    Bundle, CgroupStats, Expected, Mended, Process, Runtime, RuntimeConfig, RuntimeError,
    cgroup::{Cgroups, Group, Joins},
    command::Call,
    conmon,
    create::make_folder,
    error::io,
    inspect,
    layout::{FOLDER_MODE, Layout},
    pidfd::ProcessId,
    record::Record,
    spec,
    view::{self, Phase, View},
};
use crate::storage::IdRange;
use async_trait::async_trait;
use hoody_protocol::{container::Limits, id::ContainerId, inspection::Inspection};
use std::{collections::BTreeSet, ffi::OsString, path::Path, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Output of containers is nobody's business but the node's.
const LOG_FOLDER_MODE: u32 = 0o700;
/// How long the runtime has for what takes a few milliseconds.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// Its `exec --cgroup` leaves processes in the groups of whoever called it in every v1 hierarchy, outside of the container's
/// limits (measured with 1.8.1).
const NEEDS_V2: &str = "crun";
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// Containers run by an OCI runtime and conmon.
#[derive(Debug, Clone)]
pub struct OciRuntime {
    pub(super) config: RuntimeConfig,
    pub(super) layout: Layout,
    pub(super) cgroups: Cgroups,
    pub(super) joins: Joins,
    /// True where the kernel has IPv6, so that it must be turned off.
    pub(super) ipv6: bool,
    /// The inherited hard limit of open files.
    pub(super) open_files_limit: u64,
    /// Turns of looking into containers.
    pub(super) inspections: Arc<Semaphore>,
}

impl OciRuntime {
    /// Checks the settings, makes the state folders, and finds the cgroup hierarchies; refused where the runtime does not
    /// keep its containers' limits with them. The programs are
    /// looked for when they are needed.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        config.validate()?;
        let layout = Layout::new(&config.run_dir, &config.log_dir);
        make_folder(&config.run_dir, FOLDER_MODE)?;
        make_folder(&layout.containers(), FOLDER_MODE)?;
        make_folder(&layout.runtime_root(), FOLDER_MODE)?;
        make_folder(layout.log_dir(), LOG_FOLDER_MODE)?;
        let cgroups = Cgroups::detect(&config.cgroup_parent)?;
        if config.program.file_name().is_some_and(|name| name == NEEDS_V2) && !cgroups.is_unified() {
            let reason =
                format!("{NEEDS_V2} needs cgroup v2 alone: without, it runs processes outside of their limits");
            return Err(RuntimeError::Config { reason });
        }
        let joins = cgroups.joins();
        let inspections = Arc::new(Semaphore::new(inspect::AT_ONCE));
        let (_, open_files_limit) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map_err(|errno| io("read limit of", "open files")(errno.into()))?;
        Ok(Self { config, layout, cgroups, joins, ipv6: Path::new(IPV6).exists(), open_files_limit, inspections })
    }

    pub(super) fn look(&self, id: ContainerId) -> Result<View, RuntimeError> {
        View::look(id, &self.layout, &self.cgroups)
    }

    /// Runs the OCI runtime.
    pub(super) async fn call(
        &self,
        id: ContainerId,
        verb: &'static str,
        args: Vec<OsString>,
        stdin: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, RuntimeError> {
        let program = conmon::find_program(&self.config.program)?;
        let mut all: Vec<OsString> = vec!["--root".into(), self.layout.runtime_root().into()];
        all.extend(args);
        Call { id, program: &program, verb, args: all, stdin, deadline }.run().await
    }

    /// Runs what may wait for the kernel on a thread where waiting hurts nobody.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let runtime = self.clone();
        match tokio::task::spawn_blocking(move || work(&runtime)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels such work.
                Err(error) => Err(io("run", "blocking task")(std::io::Error::other(error))),
            },
        }
    }

    /// Kills every process of the container. The end of the first one takes all others of its pid
    /// namespace with it; the cgroups hold whatever is only about to enter.
    pub(super) async fn kill_container(&self, id: ContainerId, first: Option<ProcessId>) -> Result<(), RuntimeError> {
        if let Some(first) = first {
            first.signal(libc::SIGKILL)?;
        }
        self.blocking(move |runtime| runtime.cgroups.kill(Group::Container(id)).map(drop)).await?;
        // v1: a frozen process does not die.
        if self.cgroups.is_frozen(id)? {
            self.cgroups.freeze(id, false).await?;
        }
        Ok(())
    }

    /// The ids of every container that was made in this boot and not deleted.
    pub async fn held_ids(&self) -> Result<Vec<(ContainerId, IdRange)>, RuntimeError> {
        self.blocking(|runtime| {
            let folder = runtime.layout.containers();
            let mut held = Vec::new();
            for entry in std::fs::read_dir(&folder).map_err(io("list", &folder))? {
                let name = entry.map_err(io("list", &folder))?.file_name();
                let Some(id) = name.to_str().and_then(parse_id) else { continue };
                match Record::load(&runtime.layout.record(id)) {
                    Ok(record) => held.extend(record.map(|record| (id, record.ids))),
                    // Its processes are found by their cgroup all the same.
                    Err(error) => {
                        tracing::error!(container = %id, error = &error as &dyn std::error::Error, "unreadable record");
                    }
                }
            }
            Ok(held)
        })
        .await
    }

    fn wrong_state<T>(id: ContainerId, verb: &'static str, view: &View) -> Result<T, RuntimeError> {
        Err(RuntimeError::State { id, verb, state: view.name() })
    }
}

#[async_trait]
impl Runtime for OciRuntime {
    fn expect(&self) -> Expected {
        Expected { _joins: Some(self.joins.ready()) }
    }

    async fn create(&self, bundle: &Bundle) -> Result<i32, RuntimeError> {
        self.create_container(bundle).await
    }

    async fn start(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let (mut record, made) = match self.look(id)? {
            View::Live { record, made, phase: Phase::Created } => (record, made),
            View::Live { .. } => return Ok(()),
            view => return Self::wrong_state(id, "start", &view),
        };
        // Before the attempt: should the agent die now, the end of the process counts as the container's.
        record.started = true;
        record.save(&self.layout.record(id))?;
        let result = self.start_first_process(id, &made).await;
        match (result, self.look(id)?) {
            (Ok(()), _) | (Err(_), View::Live { phase: Phase::Running | Phase::Paused, .. } | View::Ended { .. }) => {
                Ok(())
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn state(&self, id: ContainerId) -> Result<Process, RuntimeError> {
        self.recover(id).await?;
        self.look(id)?.process(id, &self.layout, &self.cgroups).await
    }

    async fn mend(&self, bundle: &Bundle) -> Result<Mended, RuntimeError> {
        self.mend_files(bundle)
    }

    async fn signal_stop(&self, id: ContainerId, force: bool) -> Result<(), RuntimeError> {
        let View::Live { record, made, phase } = self.look(id)? else { return Ok(()) };
        // Nothing of the image runs before the start that could take a signal.
        if force || phase == Phase::Created {
            return self.kill_container(id, Some(made.first)).await;
        }
        if phase == Phase::Paused {
            self.cgroups.freeze(id, false).await?;
        }
        made.first.signal(record.stop_signal).map(drop)
    }

    async fn pause(&self, id: ContainerId) -> Result<(), RuntimeError> {
        match self.look(id)? {
            View::Live { phase: Phase::Running, .. } => self.cgroups.freeze(id, true).await,
            View::Live { phase: Phase::Paused, .. } => Ok(()),
            view => Self::wrong_state(id, "pause", &view),
        }
    }

    async fn resume(&self, id: ContainerId) -> Result<(), RuntimeError> {
        match self.look(id)? {
            View::Live { phase: Phase::Paused, .. } => self.cgroups.freeze(id, false).await,
            View::Live { phase: Phase::Running, .. } => Ok(()),
            view => Self::wrong_state(id, "resume", &view),
        }
    }

    async fn delete(&self, id: ContainerId) -> Result<(), RuntimeError> {
        self.delete_container(id).await
    }

    async fn forget(&self, id: ContainerId) -> Result<(), RuntimeError> {
        self.remove_logs(id)
    }

    async fn wait(&self, id: ContainerId) -> Result<(), RuntimeError> {
        let made = match self.look(id)? {
            View::None => return Ok(()),
            View::Live { made, .. } | View::Ended { made } => made,
        };
        if let Some(handle) = made.first.open()? {
            handle.ended().await?;
        }
        view::exit_code(id, &self.layout, &made).await.map(drop)
    }

    async fn update_limits(&self, id: ContainerId, limits: &Limits) -> Result<(), RuntimeError> {
        match self.look(id)? {
            View::Live { .. } if limits.is_valid() => {}
            View::Live { .. } => {
                return Err(RuntimeError::Bundle { id, reason: "a limit is below its minimum".into() });
            }
            view => return Self::wrong_state(id, "update", &view),
        }
        if let Some(used_bytes) = self.cgroups.unreclaimable_memory_bytes(id)?
            && used_bytes > limits.memory_bytes
        {
            return Err(RuntimeError::MemoryInUse { id, used_bytes, limit_bytes: limits.memory_bytes });
        }
        let resources = spec::limits(limits).map_err(|source| RuntimeError::Spec { id, source: Box::new(source) })?;
        let text = serde_json::to_vec(&resources)
            .map_err(|error| RuntimeError::Corrupt { path: self.layout.config(id), reason: error.to_string() })?;
        let args = vec!["update".into(), "--resources".into(), "-".into(), id.to_string().into()];
        self.call(id, "update", args, text, CALL_LIMIT).await?;
        self.limit_io(id, limits)
    }

    async fn oom_kills(&self, id: ContainerId) -> Result<u64, RuntimeError> {
        self.cgroups.oom_kills(id)
    }

    async fn stats(&self, id: ContainerId) -> Result<CgroupStats, RuntimeError> {
        self.blocking(move |runtime| runtime.cgroups.stats(id)).await
    }

    async fn inspect(&self, id: ContainerId) -> Result<Option<Inspection>, RuntimeError> {
        self.inspect_container(id).await
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, RuntimeError> {
        self.blocking(|runtime| {
            let mut found: BTreeSet<ContainerId> = runtime.cgroups.inventory()?;
            for (folder, owner) in [
                (runtime.layout.containers(), parse_id as fn(&str) -> Option<ContainerId>),
                (runtime.layout.runtime_root(), parse_id),
                (runtime.layout.log_dir().into(), Layout::log_owner),
            ] {
                for entry in std::fs::read_dir(&folder).map_err(io("list", &folder))? {
                    let entry = entry.map_err(io("list", &folder))?;
                    found.extend(entry.file_name().to_str().and_then(owner));
                }
            }
            Ok(found.into_iter().collect())
        })
        .await
    }
}

fn parse_id(name: &str) -> Option<ContainerId> {
    name.parse().ok()
}
