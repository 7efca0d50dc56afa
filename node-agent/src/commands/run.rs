//! Runs one command from its start to its outcome.

use super::{
    CommandError,
    output::Output,
    process::{self, Program},
};
use crate::runtime::cgroup::{OwnGroup, Reached};
use hoody_protocol::{
    command::{CommandOutcome, Ending, OutputStream, built_in::Effect},
    container::Cause,
    id::ExecutionId,
    time::now_ms,
};
use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};
use tokio::sync::watch;

/// The time that what a command left in its pipes may take to be read, once all its processes are gone.
const DRAIN: Duration = Duration::from_secs(2);
/// What shells add to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;

/// One run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) id: ExecutionId,
    pub(super) program: Program,
    pub(super) effect: Effect,
    pub(super) timeout: Duration,
    pub(super) group: OwnGroup,
    pub(super) output: &'a Output,
    /// Becomes true where it is to be ended.
    pub(super) cancel: watch::Receiver<bool>,
}

/// How a program ended.
struct Ended {
    ending: Ending,
    /// Where it ended by itself.
    status: Option<ExitStatus>,
    reached: Option<Reached>,
}

impl Run<'_> {
    /// Starts the program and brings it to its end. Nothing of it is left then.
    pub(super) async fn finish(mut self) -> CommandOutcome {
        let started_at = now_ms();
        let (ending, exit_code, cause) = match self.run().await {
            Ok(ended) => (ended.ending, ended.status.and_then(code), ended.reached.map(|reached| self.cause(reached))),
            Err(error) => {
                tracing::warn!(execution = %self.id, error = &error as &dyn std::error::Error, "a command did not start");
                (Ending::Failed(Cause::new("not_started", error.for_clients())), None, None)
            }
        };
        let started_at = (!matches!(ending, Ending::Failed(_))).then_some(started_at);
        let truncated = self.output.is_truncated();
        CommandOutcome { id: self.id, ending, exit_code, truncated, started_at, ended_at: now_ms(), cause }
    }

    fn cause(&self, reached: Reached) -> Cause {
        let limits = &self.program.limits;
        match reached {
            Reached::Memory => {
                let message =
                    format!("it needed more than the {} MiB that the server gives a command", limits.memory_mib());
                Cause::new("memory_limit", message)
            }
            Reached::Processes => {
                let message =
                    format!("it needed more than the {} processes that the server gives a command", limits.processes);
                Cause::new("process_limit", message)
            }
        }
    }

    async fn run(&mut self) -> Result<Ended, CommandError> {
        let mut child = match process::spawn(&self.program, &self.group) {
            Ok(child) => child,
            Err(error) => {
                process::clear(&self.group).await;
                return Err(error);
            }
        };
        hoody_fault::point!("execution.spawned");
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let take = async {
            let out = async {
                if let Some(stdout) = stdout {
                    self.output.take(OutputStream::Stdout, stdout).await;
                }
            };
            let err = async {
                if let Some(stderr) = stderr {
                    self.output.take(OutputStream::Stderr, stderr).await;
                }
            };
            tokio::join!(out, err);
        };
        tokio::pin!(take);
        let mut taken = false;
        let deadline = tokio::time::sleep(self.timeout);
        tokio::pin!(deadline);
        let reboots = self.effect == Effect::Reboots;
        let cancel = &mut self.cancel;
        let mut status = None;
        let ending = loop {
            tokio::select! {
                () = &mut take, if !taken => taken = true,
                ended = child.wait(), if status.is_none() => {
                    let ended = ended.map_err(CommandError::Wait)?;
                    // A reboot that was taken on is over when the server is down.
                    if !(reboots && ended.success()) {
                        status = Some(ended);
                        break Ending::Exited;
                    }
                    status = Some(ended);
                }
                () = &mut deadline => break Ending::TimedOut,
                _ = cancel.wait_for(|cancelled| *cancelled) => break Ending::Cancelled,
            }
        };
        hoody_fault::point!("execution.exited");
        // The kernel counts while the group is there.
        let reached = self.group.reached();
        let by_itself = matches!(ending, Ending::Exited);
        let clear = async {
            if by_itself {
                // What a command started goes with it.
                process::clear(&self.group).await;
            } else {
                process::end(&self.group).await;
            }
        };
        // Processes that end write too, and are not to wait for a full pipe.
        tokio::pin!(clear);
        loop {
            tokio::select! {
                () = &mut clear => break,
                () = &mut take, if !taken => taken = true,
            }
        }
        if !taken {
            let _ = tokio::time::timeout(DRAIN, &mut take).await;
        }
        // All of its processes are gone: this cannot take long.
        let reaped = tokio::time::timeout(DRAIN, child.wait()).await;
        if status.is_none()
            && let Ok(Ok(ended)) = reaped
        {
            status = Some(ended);
        }
        Ok(Ended { ending, status: status.filter(|_| by_itself), reached })
    }
}

fn code(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal))
}
