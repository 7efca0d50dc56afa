//! A further process that the agent looks after, through a [`monitor`] process: its input and output are the agent's,
//! its end is known exactly, and it goes with everything that it started when the agent lets go of it.

use super::{
    super::{
        OciRuntime, RuntimeError,
        cgroup::ExecGroup,
        conmon,
        error::io,
        record,
        view::{Phase, View},
    },
    ExecRequest,
    console::{Console, Handover},
    monitor::{self, Order, Said},
};
use async_trait::async_trait;
use hoody_protocol::{exec::Exit, id::ContainerId};
use nix::unistd::{Gid, Uid, fchown};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    os::unix::net::UnixStream as StdStream,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    process::Command,
    time::Instant,
};

/// How long the runtime has to start a process; a few ten milliseconds are usual.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long after the failure of a start its container is watched for its end.
const ENDING: Duration = Duration::from_millis(200);
/// Between two looks.
const ENDING_PAUSE: Duration = Duration::from_millis(10);
/// Bytes of what a monitor says.
const MAX_SAID_BYTES: u64 = 4 << 10;

/// A process to look after.
#[derive(Debug, Clone, Default)]
pub struct AttendRequest {
    /// What to run; `detach` and `limit` mean nothing here.
    pub command: ExecRequest,
    /// At a terminal of so many columns and rows.
    pub terminal: Option<(u16, u16)>,
}

/// Where a process reads and writes.
#[derive(Debug)]
pub enum Outputs {
    /// Three pipes.
    Pipes {
        /// Its standard input.
        stdin: pipe::Sender,
        /// Its standard output.
        stdout: pipe::Receiver,
        /// Its standard error.
        stderr: pipe::Receiver,
    },
    /// A terminal.
    Terminal(Console),
}

/// A process that runs. Dropping this kills it and everything that it started.
#[derive(Debug)]
pub struct Attended {
    said: BufReader<tokio::io::Take<OwnedReadHalf>>,
    control: Option<OwnedWriteHalf>,
    exit: Option<Exit>,
}

impl Attended {
    /// Waits for its end. Nothing is lost where the wait is given up.
    pub async fn ended(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        let exit = match self.next().await {
            Some(Said::Code(code)) => Exit::Code(code),
            Some(Said::Signal(signal)) => Exit::Signal(signal),
            // The monitor was killed; the cgroup is cleared when the agent lets go.
            _ => Exit::Unknown,
        };
        self.exit = Some(exit);
        exit
    }

    /// Kills it and everything that it started; [`Self::ended`] then says how it ended.
    pub fn kill(&mut self) {
        // Closes this direction of the socket, which is what the monitor waits for.
        self.control = None;
    }

    async fn next(&mut self) -> Option<Said> {
        let mut line = String::new();
        // One short line in one write: it is there or it is not, so a wait that is given up loses nothing.
        match self.said.read_line(&mut line).await {
            Ok(_) => Said::parse(line.trim_end()),
            Err(_) => None,
        }
    }
}

/// Starts processes that are looked after.
#[async_trait]
pub trait Attend: Send + Sync + std::fmt::Debug {
    /// Starts a process in a running container.
    async fn attend(&self, id: ContainerId, request: &AttendRequest) -> Result<(Attended, Outputs), RuntimeError>;
}

#[async_trait]
impl Attend for OciRuntime {
    async fn attend(&self, id: ContainerId, request: &AttendRequest) -> Result<(Attended, Outputs), RuntimeError> {
        let limit = START_LIMIT;
        let started = tokio::time::timeout(limit, self.start_attended(id, request)).await;
        started.map_err(|_elapsed| RuntimeError::Deadline { id, what: "exec", limit })?
    }
}

impl OciRuntime {
    async fn start_attended(
        &self,
        id: ContainerId,
        request: &AttendRequest,
    ) -> Result<(Attended, Outputs), RuntimeError> {
        let record = match self.look(id)? {
            View::Live { record, phase: Phase::Running, .. } => record,
            view => return Err(RuntimeError::State { id, verb: "exec", state: view.name() }),
        };
        let _ready = self.joins.ready();
        let runtime = conmon::find_program(&self.config.program)?;
        let name = format!("{:08x}", rand::random::<u32>());
        let files = Files::new(&self.layout.bundle(id), &name);
        let (process, (uid, gid)) = self.process(id, &request.command, request.terminal.is_some())?;
        record::replace(&files.process, &process)?;
        let handover = request.terminal.map(|_| Handover::listen(files.socket.clone())).transpose()?;
        let group = self.cgroups.make_exec(id, &name)?;
        let order = Order {
            group: group.folder.clone(),
            pid: files.pid.clone(),
            log: files.log.clone(),
            runtime: self.arguments(id, &runtime, &files, &group, handover.as_ref()),
        };
        let owner = (record.ids.first + uid, record.ids.first + gid);
        let (mut attended, pipes) = match self.spawn(order, request.terminal.is_none().then_some(owner)) {
            Ok(spawned) => spawned,
            Err(error) => {
                // Nothing was started: an empty group, which the container's end would take along as well.
                let _ = std::fs::remove_dir(&group.folder);
                return Err(error);
            }
        };
        let console = async {
            match &handover {
                Some(handover) => handover.receive().await.map(Some),
                None => Ok(None),
            }
        };
        // A runtime that fails does not hand anything over.
        let (console, said) = tokio::select! {
            biased;
            console = console => (Some(console?), attended.next().await),
            said = attended.next() => (None, said),
        };
        match said {
            Some(Said::Started) => {}
            Some(Said::Failed(reason)) => return Err(self.why_not_started(id, reason).await?),
            _ => return Err(RuntimeError::Start { id, reason: "what looks after the process ended".into() }),
        }
        let console = match (console, &handover) {
            (Some(console), _) => console,
            (None, Some(handover)) => Some(handover.receive().await?),
            (None, None) => None,
        };
        match (console, pipes) {
            (Some(console), _) => {
                if let Some((columns, rows)) = request.terminal {
                    console.resize(columns, rows).map_err(io("resize terminal of", &files.process))?;
                }
                Ok((attended, Outputs::Terminal(console)))
            }
            (None, Some(Pipes { stdin, stdout, stderr })) => Ok((attended, Outputs::Pipes { stdin, stdout, stderr })),
            (None, None) => Err(RuntimeError::Start { id, reason: "it has no input and output".into() }),
        }
    }

    /// What a failure of the runtime means: the command's fault, or that the container was just ending.
    async fn why_not_started(&self, id: ContainerId, reason: String) -> Result<RuntimeError, RuntimeError> {
        let is_its_own = reason.starts_with("exec: ") || reason.contains("chdir");
        let failed = Instant::now();
        while !is_its_own && failed.elapsed() < ENDING {
            match self.look(id)? {
                View::Live { made, phase: Phase::Running, .. } if !made.first.is_ending()? => {}
                View::Live { phase: Phase::Running, .. } => {
                    return Ok(RuntimeError::State { id, verb: "exec", state: "exited" });
                }
                view => return Ok(RuntimeError::State { id, verb: "exec", state: view.name() }),
            }
            tokio::time::sleep(ENDING_PAUSE).await;
        }
        Ok(RuntimeError::Start { id, reason })
    }

    fn arguments(
        &self,
        id: ContainerId,
        runtime: &Path,
        files: &Files,
        group: &ExecGroup,
        handover: Option<&Handover>,
    ) -> Vec<std::ffi::OsString> {
        let mut all: Vec<std::ffi::OsString> = vec![
            runtime.into(),
            "--root".into(),
            self.layout.runtime_root().into(),
            "--log".into(),
            files.log.clone().into(),
            "--log-format=json".into(),
            "exec".into(),
            "--detach".into(),
            "--process".into(),
            files.process.clone().into(),
            "--pid-file".into(),
            files.pid.clone().into(),
            "--cgroup".into(),
            group.argument.clone().into(),
        ];
        if let Some(handover) = handover {
            all.extend(["--console-socket".into(), handover.path().into()]);
        }
        all.push(id.to_string().into());
        all
    }

    /// Starts the monitor; with pipes that belong to `owner`, or without input and output.
    fn spawn(&self, order: Order, owner: Option<(u32, u32)>) -> Result<(Attended, Option<Pipes>), RuntimeError> {
        let program = self.config.monitor.clone();
        let failed = |source| RuntimeError::Program { program: program.clone(), source };
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let ours = UnixStream::from_std(ours).map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        let number = theirs.as_raw_fd();
        let mut command = Command::new(&program);
        command.arg(monitor::SUBCOMMAND).args(order.into_arguments(number)).process_group(0);
        let pipes = match owner {
            Some(owner) => Some(Pipes::attach(&mut command, owner).map_err(failed)?),
            None => {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                None
            }
        };
        // SAFETY: the closure runs between fork and exec and makes one system call on a descriptor that stays open
        // until `spawn` has returned; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let mut child = command.spawn().map_err(failed)?;
        drop(theirs);
        // Its copies of the pipes' other ends go with it.
        drop(command);
        // It ends by itself once the process has, or this side of the socket is closed.
        tokio::spawn(async move { child.wait().await });
        let (said, control) = ours.into_split();
        let said = BufReader::new(said.take(MAX_SAID_BYTES));
        Ok((Attended { said, control: Some(control), exit: None }, pipes))
    }

    /// Ends what processes of an agent before this one left behind, and removes their files.
    pub async fn sweep_execs(&self) -> Result<usize, RuntimeError> {
        self.blocking(|runtime| {
            let mut swept = 0;
            for id in runtime.cgroups.inventory()? {
                swept += runtime.cgroups.sweep_execs(id)?;
                let Ok(entries) = std::fs::read_dir(runtime.layout.bundle(id)) else { continue };
                for entry in entries.flatten() {
                    if entry.file_name().to_str().is_some_and(|name| name.starts_with(Files::PREFIX)) {
                        let _ = std::fs::remove_file(entry.path());
                    }
                }
            }
            Ok(swept)
        })
        .await
    }
}

/// Our ends of a process's pipes.
struct Pipes {
    stdin: pipe::Sender,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Pipes {
    /// Makes them for a program that is about to be started. They belong to the process's user from the beginning:
    /// programs open /dev/stdout and the like by name.
    fn attach(command: &mut Command, (uid, gid): (u32, u32)) -> std::io::Result<Self> {
        let make = || -> std::io::Result<_> {
            let (reader, writer) = std::io::pipe()?;
            fchown(&reader, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            Ok((OwnedFd::from(reader), OwnedFd::from(writer)))
        };
        let (stdin, stdout, stderr) = (make()?, make()?, make()?);
        command.stdin(Stdio::from(stdin.0)).stdout(Stdio::from(stdout.1)).stderr(Stdio::from(stderr.1));
        Ok(Self {
            stdin: pipe::Sender::from_owned_fd(stdin.1)?,
            stdout: pipe::Receiver::from_owned_fd(stdout.0)?,
            stderr: pipe::Receiver::from_owned_fd(stderr.0)?,
        })
    }
}

/// Files of one start; removed with it. The description of the process may hold secrets.
struct Files {
    process: PathBuf,
    pid: PathBuf,
    log: PathBuf,
    socket: PathBuf,
}

impl Files {
    const PREFIX: &str = "attended-";

    fn new(bundle: &Path, name: &str) -> Self {
        let file = |kind: &str| bundle.join(format!("{}{name}.{kind}", Self::PREFIX));
        Self { process: file("json"), pid: file("pid"), log: file("log"), socket: file("sock") }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.process, &self.pid, &self.log] {
            super::remove(path);
        }
    }
}
