//! Starts conmon, which runs the OCI runtime's `create`, stays as the container's parent, keeps its
//! output and leaves its exit code. conmon forks away by itself, so the agent's end does not concern it; it
//! joins a cgroup of its own before it runs, so that it can always be found.
//!
//! conmon reports through a pipe (`_OCI_SYNCPIPE`): one JSON line with `data`, the container's pid, or a
//! negative number and a `message`.

use super::{
    RuntimeConfig, RuntimeError, cgroup::Cgroups, command, error::io, layout::Layout, pidfd::ProcessId, record::Made,
    spawn::Launch,
};
use crate::timing::step;
use hoody_protocol::id::ContainerId;
use nix::{fcntl::OFlag, unistd::pipe2};
use serde::Deserialize;
use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe::Receiver,
};

/// How long conmon and the runtime's `create` have together; a few ten milliseconds are usual.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest report that is read.
const MAX_REPORT_BYTES: u64 = 64 << 10;
/// Longest complaint that is read.
const MAX_COMPLAINT_BYTES: u64 = 4 << 10;
/// The least share of a processor that there is (setpriority(2)).
const MONITOR_NICENESS: i32 = 19;
const SYNC_PIPE: &str = "_OCI_SYNCPIPE";
const VERB: &str = "create";

/// What conmon says.
#[derive(Debug, Deserialize)]
struct Report {
    data: i32,
    #[serde(default)]
    message: String,
}

/// Has conmon create the container whose bundle stands; returns its processes.
pub(super) async fn launch(
    id: ContainerId,
    config: &RuntimeConfig,
    layout: &Layout,
    cgroups: &Cgroups,
) -> Result<Made, RuntimeError> {
    let runtime = find_program(&config.program)?;
    let conmon = find_program(&config.conmon)?;
    let work = run(id, config, layout, cgroups, &runtime, &conmon);
    let limit = LIMIT;
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(RuntimeError::Deadline { id, what: VERB, limit }),
    }
}

async fn run(
    id: ContainerId,
    config: &RuntimeConfig,
    layout: &Layout,
    cgroups: &Cgroups,
    runtime: &Path,
    conmon: &Path,
) -> Result<Made, RuntimeError> {
    let complaints = layout.bundle(id).join("conmon.err");
    let stderr = File::create(&complaints).map_err(io("create", &complaints))?;
    let membership = cgroups.make_conmon(id)?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| io("make pipe for", conmon)(errno.into()))?;
    // conmon's end can also read: should this agent die, the pipe does not break, on which conmon
    // would end too (measured with 2.1.6) and leave a container without exit code and output.
    let both = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let writer = File::options().read(true).write(true).open(&both).map_err(io("open", both))?;
    let reader = Receiver::from_owned_fd(reader).map_err(io("read pipe of", conmon))?;
    let args = arguments(id, config, layout, runtime);
    let launch = Launch {
        program: conmon,
        args: &args,
        env: (SYNC_PIPE, writer.as_raw_fd().to_string()),
        folder: &layout.bundle(id),
        stderr: &stderr,
        inherited: writer.as_raw_fd(),
        membership: &membership,
    };
    let spawned = step("agent: create, fork", async { launch.spawn() }).await;
    let mut first = spawned.map_err(|source| RuntimeError::Program { program: conmon.into(), source })?;
    hoody_fault::point!("conmon.spawned");
    // Ours must go, or the end of conmon would never be seen.
    drop(writer);
    let mut text = String::new();
    // This process ends as soon as it has forked the conmon that stays.
    let status = step("agent: create, conmon", first.wait()).await;
    let status = status.map_err(|source| RuntimeError::Program { program: conmon.into(), source })?;
    if status.success() {
        // One line: conmon keeps the pipe open for as long as it lives.
        let mut reader = BufReader::new(reader.take(MAX_REPORT_BYTES));
        step("agent: create, runtime", reader.read_line(&mut text)).await.map_err(io("read pipe of", conmon))?;
    }
    let complaint = read_start(&complaints);
    let report = serde_json::from_str::<Report>(&text).ok();
    match report {
        Some(report) if report.data > 0 => made(id, layout, cgroups, report.data),
        Some(report) if !report.message.is_empty() => {
            Err(command::failed(runtime, VERB, format!("code {}", report.data), report.message.as_bytes()))
        }
        Some(report) => Err(command::failed(runtime, VERB, format!("code {}", report.data), &complaint)),
        None => Err(command::failed(conmon, VERB, status.to_string(), &complaint)),
    }
}

/// The processes of the container that conmon made, whose first has this number.
fn made(id: ContainerId, layout: &Layout, cgroups: &Cgroups, pid: i32) -> Result<Made, RuntimeError> {
    let path = layout.conmon_pid_file(id);
    let missing = |reason: &str| RuntimeError::Corrupt { path: path.clone(), reason: reason.into() };
    let conmon = find(id, layout, cgroups)?.ok_or_else(|| missing("conmon is gone"))?;
    let first = ProcessId::of(pid)?.ok_or_else(|| missing("the first process is gone"))?;
    give_way(conmon)?;
    Ok(Made { first, conmon: Some(conmon) })
}

/// A container that floods its log keeps its monitor busy, which no limit of the container counts: the monitor
/// gives way to everybody, and the flood waits for it. Only now: before, the container would have inherited it.
fn give_way(conmon: ProcessId) -> Result<(), RuntimeError> {
    // SAFETY: a system call without pointers.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, conmon.pid.unsigned_abs(), MONITOR_NICENESS) };
    match done {
        0 => Ok(()),
        _ => match std::io::Error::last_os_error() {
            // It has ended already, and its end is found as such.
            source if source.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            source => Err(RuntimeError::Process { action: "set niceness of", pid: conmon.pid, source }),
        },
    }
}

/// The container's conmon, where one runs: the process its file names, if that is in conmon's cgroup.
pub(super) fn find(id: ContainerId, layout: &Layout, cgroups: &Cgroups) -> Result<Option<ProcessId>, RuntimeError> {
    let path = layout.conmon_pid_file(id);
    let Some(pid) = read_pid(&path)? else { return Ok(None) };
    let Some(process) = ProcessId::of(pid)? else { return Ok(None) };
    Ok(cgroups.holds(super::cgroup::Group::Conmon(id), pid)?.then_some(process))
}

/// A number in a file; `None` where there is none yet.
fn read_pid(path: &Path) -> Result<Option<i32>, RuntimeError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok().filter(|&pid| pid > 0)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io("read", path)(source)),
    }
}

fn arguments(id: ContainerId, config: &RuntimeConfig, layout: &Layout, runtime: &Path) -> Vec<OsString> {
    let flag = |name: &str, value: &Path| -> OsString {
        let mut text = OsString::from(name);
        text.push(value);
        text
    };
    let id_text = id.to_string();
    vec![
        "--api-version=1".into(),
        format!("--cid={id_text}").into(),
        format!("--cuuid={id_text}").into(),
        flag("--runtime=", runtime),
        flag("--runtime-arg=--root=", &layout.runtime_root()),
        flag("--bundle=", &layout.bundle(id)),
        flag("--container-pidfile=", &layout.pid_file(id)),
        flag("--conmon-pidfile=", &layout.conmon_pid_file(id)),
        flag("--exit-dir=", &layout.exit_dir(id)),
        flag("--log-path=k8s-file:", &layout.log(id)),
        format!("--log-size-max={}", config.log_max_bytes).into(),
        // The attach socket then lies in the bundle and goes with it.
        "--full-attach".into(),
    ]
}

/// The absolute path of a program: conmon does not search.
pub(super) fn find_program(program: &Path) -> Result<PathBuf, RuntimeError> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    let missing = || RuntimeError::Program { program: program.into(), source: std::io::ErrorKind::NotFound.into() };
    if program.is_absolute() {
        return runs(program).then(|| program.into()).ok_or_else(missing);
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).map(|folder| folder.join(program)).find(|path| runs(path));
    found.filter(|path| path.is_absolute()).ok_or_else(missing)
}

fn read_start(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        // Only for an error message; without it the message is shorter.
        let _ = file.take(MAX_COMPLAINT_BYTES).read_to_end(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_or_where_they_are_said_to_be() {
        assert!(find_program(Path::new("sh")).unwrap().is_absolute());
        assert!(find_program(Path::new("/bin/sh")).is_ok());
        for missing in ["/nonexistent/runc", "no-such-runtime", "/etc/passwd"] {
            let error = find_program(Path::new(missing)).unwrap_err();
            assert!(matches!(error, RuntimeError::Program { .. }), "{error}");
        }
    }

    #[test]
    fn reports_are_read_with_and_without_a_message() {
        let report: Report = serde_json::from_str(r#"{"data": 17}"#).unwrap();
        assert_eq!((report.data, report.message.as_str()), (17, ""));
        let report: Report = serde_json::from_str(r#"{"data": -1, "message": "no"}"#).unwrap();
        assert_eq!((report.data, report.message.as_str()), (-1, "no"));
    }
}
