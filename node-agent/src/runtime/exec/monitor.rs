//! The process that looks after one further process of a container: the agent's own program, started again with
//! [`SUBCOMMAND`].
//!
//! It runs the OCI runtime's detached `exec`, becomes the parent of what that leaves behind (`PR_SET_CHILD_SUBREAPER`),
//! says how it ended, exactly, and then kills all that is left in the process's cgroup. It does the same as soon as
//! the agent's end of the control socket is closed: by the agent, or by the agent's end. So nothing of an exec outlives
//! the agent that asked for it, however that ended.
//!
//! One line of text on the control socket says each thing: see [`Said`].

use super::super::{RuntimeError, cgroup::tree, pidfd::ProcessId};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::set_child_subreaper,
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout},
};
use std::{
    ffi::OsString,
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

/// The first argument by which the agent's program becomes the monitor.
pub const SUBCOMMAND: &str = "exec-monitor";
/// Bytes of the runtime's own log that are read for its complaint.
const MAX_LOG_BYTES: u64 = 64 << 10;
/// Pause between two looks whether killed processes are gone; a frozen container's are not until it is thawed.
const KILL_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// What a monitor is asked to do, as arguments behind [`SUBCOMMAND`].
#[derive(Debug)]
pub(super) struct Order {
    /// The cgroup that holds the process and all that it starts, in one hierarchy.
    pub(super) group: PathBuf,
    /// Where the runtime writes the process's number.
    pub(super) pid: PathBuf,
    /// Where the runtime writes its complaints.
    pub(super) log: PathBuf,
    /// Program and arguments of the runtime's detached exec.
    pub(super) runtime: Vec<OsString>,
}

impl Order {
    pub(super) fn into_arguments(self, control: i32) -> Vec<OsString> {
        let head = [control.to_string().into(), self.group.into(), self.pid.into(), self.log.into()];
        head.into_iter().chain(self.runtime).collect()
    }

    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<(i32, Self)> {
        let control = arguments.next()?.to_str()?.parse().ok().filter(|fd| *fd > 2)?;
        let mut path = || arguments.next().map(PathBuf::from);
        let (group, pid, log) = (path()?, path()?, path()?);
        let runtime: Vec<OsString> = arguments.collect();
        (!runtime.is_empty()).then_some((control, Self { group, pid, log, runtime }))
    }
}

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The process runs.
    Started,
    /// It could not be started: the runtime's complaint.
    Failed(String),
    /// It ended with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Said {
    fn line(&self) -> String {
        match self {
            Self::Started => "started\n".into(),
            Self::Failed(reason) => format!("failed {}\n", reason.replace(char::is_control, " ")),
            Self::Code(code) => format!("code {code}\n"),
            Self::Signal(signal) => format!("signal {signal}\n"),
        }
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "started" => Some(Self::Started),
            "failed" => Some(Self::Failed(rest.to_owned())),
            "code" => rest.parse().ok().map(Self::Code),
            "signal" => rest.parse().ok().map(Self::Signal),
            _ => None,
        }
    }
}

/// What `main` calls, before any thread is started, where the program's first argument is [`SUBCOMMAND`];
/// `arguments` are those behind it.
pub fn child_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some((control, order)) = Order::parse(arguments) else {
        eprintln!("{SUBCOMMAND} is for the agent's own use");
        return ExitCode::from(2);
    };
    // SAFETY: the agent made the descriptor for this process and says its number; nothing else here uses it.
    let control = UnixStream::from(unsafe { OwnedFd::from_raw_fd(control) });
    let said = match attend(&control, &order) {
        Ok(said) => said,
        Err(error) => Said::Failed(error.to_string()),
    };
    // An agent that is gone needs no answer.
    let _ = (&control).write_all(said.line().as_bytes());
    let cleared = clear(&order.group);
    // An agent that gave up the start has removed its files already; the runtime may have made these again since.
    for path in [&order.pid, &order.log] {
        super::remove(path);
    }
    match cleared {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn attend(control: &UnixStream, order: &Order) -> Result<Said, Box<dyn std::error::Error>> {
    set_close_on_exec(control)?;
    set_child_subreaper(true)?;
    let (program, arguments) = order.runtime.split_first().ok_or("no runtime")?;
    let mut runtime = Command::new(program).args(arguments).spawn()?;
    let starter = ProcessId::of(runtime.id() as i32)?;
    if !wait_for(starter, control)? {
        runtime.kill()?;
        clear(&order.group)?;
    }
    let started = runtime.wait()?.success();
    if !started {
        return Ok(Said::Failed(complaint(&order.log)));
    }
    let pid: i32 = std::fs::read_to_string(&order.pid)?.trim().parse()?;
    // The process has its own copies: the ends of its output must be seen.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    let _ = (&*control).write_all(Said::Started.line().as_bytes());
    if !wait_for(ProcessId::of(pid)?, control)? {
        clear(&order.group)?;
    }
    Ok(match waitpid(Pid::from_raw(pid), None)? {
        WaitStatus::Exited(_, code) => Said::Code(code),
        WaitStatus::Signaled(_, signal, _) => Said::Signal(signal as i32),
        other => return Err(format!("unexpected end: {other:?}").into()),
    })
}

/// Waits until the process has ended; false where the agent's end of the socket was closed before.
fn wait_for(process: Option<ProcessId>, control: &UnixStream) -> Result<bool, Box<dyn std::error::Error>> {
    // Ended already, and waiting to be waited for.
    let Some(handle) = process.map(|process| process.open()).transpose()?.flatten() else { return Ok(true) };
    loop {
        let mut watched =
            [PollFd::new(handle.descriptor(), PollFlags::POLLIN), PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        let is_ready = |poll: &PollFd<'_>| poll.revents().is_some_and(|events| !events.is_empty());
        if is_ready(&watched[0]) {
            return Ok(true);
        }
        // The agent writes nothing: whatever is to be read is the end.
        if is_ready(&watched[1]) {
            return Ok(false);
        }
    }
}

/// Kills all that is in the group, again and again until nothing is left, and removes it.
fn clear(group: &Path) -> Result<(), RuntimeError> {
    let mut pause = KILL_PAUSE.0;
    loop {
        tree::kill(group)?;
        if tree::processes(group)?.is_empty() && tree::remove(group)? {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(KILL_PAUSE.1);
    }
}

fn set_close_on_exec(control: &UnixStream) -> nix::Result<()> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(control, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop)
}

/// The last complaint in the runtime's log: lines of JSON with `level` and `msg`.
fn complaint(log: &Path) -> String {
    #[derive(serde::Deserialize)]
    struct Line {
        msg: String,
    }
    let mut text = String::new();
    if let Ok(file) = File::open(log) {
        // Without it the message is shorter.
        let _ = file.take(MAX_LOG_BYTES).read_to_string(&mut text);
    }
    let last = text.lines().rev().find_map(|line| serde_json::from_str::<Line>(line).ok());
    let message = last.map_or_else(|| "the runtime did not say why".to_owned(), |line| line.msg);
    let words = message.rsplit_once("unable to start container process: ").map_or(message.as_str(), |(_, words)| words);
    words.chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for said in [Said::Started, Said::Failed("no such file".into()), Said::Code(3), Said::Signal(9)] {
            assert_eq!(Said::parse(said.line().trim_end()), Some(said));
        }
        assert_eq!(Said::Failed("two\nlines".into()).line(), "failed two lines\n");
        assert_eq!(Said::parse("code x"), None);
    }

    #[test]
    fn the_runtimes_last_complaint_is_found_without_its_preface() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = r#"{"level":"error","msg":"exec failed: unable to start container process: exec: \"x\": not found","time":"t"}"#;
        std::fs::write(file.path(), format!("{{\"level\":\"info\",\"msg\":\"a\"}}\n{line}\n")).unwrap();
        assert_eq!(complaint(file.path()), "exec: \"x\": not found");
        assert_eq!(complaint(Path::new("/nonexistent")), "the runtime did not say why");
    }
}
