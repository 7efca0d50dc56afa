//! Starts the receiver process, feeds it, and takes its report.

use super::{
    child::{Order, SUBCOMMAND},
    report::{MAX_REPORT_BYTES, Refusal, Report, Tally},
    stream::Uuid,
};
use crate::sandbox::child::{read_up_to, wait};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    net::unix::pipe::Sender,
    sync::oneshot::{self, Receiver},
};

/// Bytes between the agent and the receiver: the most that an unprivileged process may have too.
pub(crate) const PIPE_BYTES: i32 = 1 << 20;
/// Bytes of standard error that are kept.
const MAX_DIAGNOSIS_BYTES: u64 = 1024;

/// Why a stream was not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream is not acceptable.
    #[error("the stream is not acceptable: {refusal} ({detail})")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// What of it, as far as that says more.
        detail: String,
    },
    /// The file system refused something, for want of room perhaps.
    #[error("carry out the stream")]
    Apply(#[source] io::Error),
    /// The receiver could not be started or waited for.
    #[error("run the receiver {}", program.display())]
    Run {
        /// The agent's program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The receiver ended without a report.
    #[error("the receiver died ({status}): {diagnosis}")]
    Died {
        /// How.
        status: ExitStatus,
        /// What it wrote to standard error.
        diagnosis: String,
    },
    /// It took longer than it may.
    #[error("the stream was not received within {seconds} s")]
    Deadline {
        /// The limit.
        seconds: u64,
    },
    /// The agent is ending.
    #[error("receiving was cut off")]
    CutOff,
}

/// A receiver at work. Dropping `input` ends the stream there.
#[derive(Debug)]
pub(crate) struct Running {
    /// Takes the stream.
    pub(crate) input: Sender,
    /// How it ended.
    pub(crate) ended: Receiver<Result<Tally, ReceiveError>>,
}

/// Starts the receiver in the folder `target`. It has a thread of its own, because the kernel kills it when the
/// thread that started it ends.
pub(crate) fn start(
    program: &Path,
    target: &Path,
    parent: Option<Uuid>,
    deadline: Duration,
) -> Result<Running, ReceiveError> {
    let failed = |source| ReceiveError::Run { program: program.to_owned(), source };
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).map_err(|errno| failed(errno.into()))?;
    let input = Sender::from_owned_fd(write).map_err(failed)?;
    let (report, ended) = oneshot::channel();
    let (program, target) = (program.to_owned(), target.to_owned());
    let thread = std::thread::Builder::new().name("receive".into()).spawn({
        let program = program.clone();
        move || {
            // Where nobody waits for it any more, nothing is lost.
            let _ = report.send(attend(&program, &target, parent, read, deadline));
        }
    });
    thread.map_err(|source| ReceiveError::Run { program, source })?;
    Ok(Running { input, ended })
}

fn attend(
    program: &Path,
    target: &Path,
    parent: Option<Uuid>,
    input: OwnedFd,
    deadline: Duration,
) -> Result<Tally, ReceiveError> {
    let failed = |source| ReceiveError::Run { program: program.to_owned(), source };
    let order = Order { parent, agent: std::process::id() };
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .args(order.to_arguments())
        .env_clear()
        .current_dir(target)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let ended = wait(&child, deadline);
    if !matches!(ended, Ok(true)) {
        // Already dead is as good.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    if !ended.map_err(failed)? {
        return Err(ReceiveError::Deadline { seconds: deadline.as_secs() });
    }
    let report = read_up_to(child.stdout.take(), MAX_REPORT_BYTES);
    match serde_json::from_slice(&report) {
        Ok(Report::Done(tally)) if status.success() => Ok(tally),
        Ok(Report::Refused { refusal, detail }) if status.success() => Err(ReceiveError::Refused { refusal, detail }),
        Ok(Report::Failed { errno, message }) if status.success() => Err(ReceiveError::Apply(if errno > 0 {
            io::Error::from_raw_os_error(errno)
        } else {
            io::Error::other(message)
        })),
        _ => {
            let said = read_up_to(child.stderr.take(), MAX_DIAGNOSIS_BYTES);
            Err(ReceiveError::Died { status, diagnosis: String::from_utf8_lossy(&said).into_owned() })
        }
    }
}
