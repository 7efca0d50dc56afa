//! Further processes in a running container. Here: for operators, with the caller's own standard input and
//! output, or detached from everything. [`attended`] is for those that the agent looks after.

mod attended;
mod console;
pub mod monitor;
mod process;

pub use attended::{Attend, AttendRequest, Attended, Outputs};
pub use console::Console;

use super::{
    OciRuntime, RuntimeError,
    cgroup::Group,
    conmon,
    pidfd::ProcessId,
    record,
    view::{Phase, View},
};
use hoody_protocol::id::ContainerId;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{io::AsyncReadExt, process::Command};

/// How long the runtime has to start a detached process.
const DETACH_LIMIT: Duration = Duration::from_secs(15);

/// How long a process has whose output is read, where its request does not say.
const OUTPUT_LIMIT: Duration = Duration::from_secs(15);

/// A process to run.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Command line, looked up in the `PATH` of the environment.
    pub argv: Vec<String>,
    /// Variables over those of the container's first process.
    pub env: BTreeMap<String, String>,
    /// Working directory; empty: `/`.
    pub cwd: String,
    /// `uid[:gid]` or `name[:group]` of the container's own accounts; empty: root.
    pub user: String,
    /// True: returns as soon as the process runs, which then has `/dev/null` for its input and output
    /// and outlives the agent. False: it has the caller's, and the call returns when it ended.
    pub detach: bool,
    /// The time an attached process has before it is killed; `None`: as long as it takes.
    pub limit: Option<Duration>,
}

impl OciRuntime {
    /// Runs a process. The status is the process's own (128 + signal where a
    /// signal ended it), or success where it was detached.
    pub async fn exec(&self, id: ContainerId, request: &ExecRequest) -> Result<ExitStatus, RuntimeError> {
        match self.look(id)? {
            View::Live { phase: Phase::Running, .. } => {}
            view => return Err(RuntimeError::State { id, verb: "exec", state: view.name() }),
        }
        let (program, mut command, mut files) = self.prepare_exec(id, request)?;
        let mut child = command.spawn().map_err(|source| RuntimeError::Program { program: program.clone(), source })?;
        let limit = if request.detach { Some(DETACH_LIMIT) } else { request.limit };
        let status = match limit {
            Some(limit) => tokio::time::timeout(limit, child.wait())
                .await
                .map_err(|_elapsed| RuntimeError::Deadline { id, what: "exec", limit })?,
            None => child.wait().await,
        };
        files.ended = true;
        status.map_err(|source| RuntimeError::Program { program, source })
    }

    /// Runs a process as root of the container and gives the first `max_bytes` that it writes to its standard output.
    /// It is killed where it has not ended by the request's limit; its status does not count.
    pub(super) async fn exec_output(
        &self,
        id: ContainerId,
        request: &ExecRequest,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RuntimeError> {
        let (program, mut command, mut files) = self.prepare_exec(id, request)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let failed = |source| RuntimeError::Program { program: program.clone(), source };
        let mut child = command.spawn().map_err(failed)?;
        let mut output = Vec::new();
        let exchange = async {
            if let Some(stdout) = child.stdout.take() {
                // Closed with the end of this statement: what still writes then is told.
                stdout.take(max_bytes).read_to_end(&mut output).await?;
            }
            child.wait().await
        };
        let limit = request.limit.unwrap_or(OUTPUT_LIMIT);
        let ended = tokio::time::timeout(limit, exchange).await;
        ended.map_err(|_elapsed| RuntimeError::Deadline { id, what: "exec", limit })?.map_err(failed)?;
        files.ended = true;
        Ok(output)
    }

    fn prepare_exec(&self, id: ContainerId, request: &ExecRequest) -> Result<(PathBuf, Command, Files), RuntimeError> {
        let program = conmon::find_program(&self.config.program)?;
        let name = format!("exec-{:016x}", rand::random::<u64>());
        let files = Files {
            process: self.layout.bundle(id).join(format!("{name}.json")),
            pid: self.layout.bundle(id).join(format!("{name}.pid")),
            runtime: self.clone(),
            id,
            ended: false,
        };
        // A file, not arguments: everybody on the node can read those.
        record::replace(&files.process, &self.process(id, request, false)?.0)?;
        let mut command = Command::new(&program);
        command.arg("--root").arg(self.layout.runtime_root()).arg("exec");
        command.arg("--process").arg(&files.process).arg("--pid-file").arg(&files.pid);
        if request.detach {
            command.arg("--detach").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        command.arg(id.to_string()).kill_on_drop(true);
        Ok((program, command, files))
    }
}

/// Files of one call; removed with it. Where the call was given up, its process inside is killed:
/// killing the runtime program alone would leave it running.
struct Files {
    process: PathBuf,
    pid: PathBuf,
    runtime: OciRuntime,
    id: ContainerId,
    ended: bool,
}

impl Files {
    fn kill(&self) -> Result<(), RuntimeError> {
        let Some(pid) = std::fs::read_to_string(&self.pid).ok().and_then(|text| text.trim().parse().ok()) else {
            return Ok(());
        };
        let Some(process) = ProcessId::of(pid)? else { return Ok(()) };
        // The number may be another's by now, but nobody else's process is in this group.
        if self.runtime.cgroups.holds(Group::Container(self.id), pid)? {
            process.signal(libc::SIGKILL)?;
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.kill()
        {
            tracing::warn!(container = %self.id, error = &error as &dyn std::error::Error, "kill given-up exec");
        }
        for path in [&self.process, &self.pid] {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            // The bundle's removal takes it along.
            tracing::warn!(path = %path.display(), %error, "remove file of exec");
        }
        _ => {}
    }
}
