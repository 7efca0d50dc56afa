//! A process that runs while the request waits. The request's end ends it.

use super::{
    CommandInput, broken, check_reachable, check_running, command::all_right, conversations::Kind, find, not_opened,
    record, refused,
};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    nodes::remote::{RemoteError, RemoteInput, RemoteProcess},
};
use hoody_protocol::{
    exec::{ExecRequest, ProcessEnd, ProcessOutput},
    id::ContainerId,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// The longest that a process may run.
pub const LONGEST: Duration = Duration::from_secs(600);
/// How long it runs where the request does not say.
const USUAL: Duration = Duration::from_secs(60);
/// Bytes of each output that can be asked for.
pub const MAX_OUTPUT_BYTES: u64 = 4 << 20;
/// Bytes of each output that are kept where the request does not say.
const USUAL_OUTPUT_BYTES: u64 = 1 << 20;
/// How long the node has, beyond the process's own limit, to start it and to tell its end.
const GRACE: Duration = Duration::from_secs(20);

/// What to run, and what is kept of it.
#[derive(Debug, Clone, Default)]
pub struct ExecInput {
    /// What to run.
    pub command: CommandInput,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// The time it has, seconds.
    pub timeout_s: Option<f64>,
    /// Bytes of each output that are kept.
    pub max_output_bytes: Option<u64>,
}

/// One output of a process.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The beginning.
    pub bytes: Vec<u8>,
    /// Bytes behind it that were not kept.
    pub dropped: u64,
}

/// What became of a process.
#[derive(Debug, Clone)]
pub struct ExecOutcome {
    /// Its standard output.
    pub stdout: Kept,
    /// Its standard error.
    pub stderr: Kept,
    /// How it ended.
    pub end: ProcessEnd,
}

/// Runs a process in the container and waits for its end.
pub async fn run(app: &App, caller: &Caller, id: ContainerId, input: ExecInput) -> Result<ExecOutcome, ServiceError> {
    let row = find(app, caller, id, Level::Edit).await?;
    let mut problems = BTreeMap::new();
    let seconds = input.timeout_s.unwrap_or(USUAL.as_secs_f64());
    if !(0.1..=LONGEST.as_secs_f64()).contains(&seconds) {
        problems.insert("timeout".to_owned(), format!("must be from 0.1 to {} seconds", LONGEST.as_secs()));
    }
    let output_bytes = input.max_output_bytes.unwrap_or(USUAL_OUTPUT_BYTES);
    if output_bytes > MAX_OUTPUT_BYTES {
        problems.insert("max_output_bytes".to_owned(), format!("must be at most {MAX_OUTPUT_BYTES}"));
    }
    let argv = input.command.argv.clone();
    let command = input.command.check(&mut problems);
    all_right(problems)?;
    let Some(command) = command else { return Err(ServiceError::invalid("argv", "cannot be run")) };
    check_running(&row)?;
    check_reachable(app, &row).await?;
    let _place = app.conversations.begin(caller.user, Kind::Process)?;
    record(app, caller, &row, "container.exec", Some(&argv)).await?;
    let limit = Duration::from_secs_f64(seconds);
    let request = ExecRequest { container: id, command, limit_ms: limit.as_millis() as u64, output_bytes };
    let stream = app.nodes.open(row.server, &request).await.map_err(|error| not_opened(&row, error))?;
    let (mut process, stdin) = stream.into_process();
    let talk = async {
        tokio::select! {
            outcome = outcome(&mut process, output_bytes) => outcome,
            error = feed(&stdin, &input.stdin) => Err(Failure::Broken(error)),
        }
    };
    match timeout(limit + GRACE, talk).await {
        Err(_elapsed) => Err(ServiceError::NodeTimeout),
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(Failure::Refused(error))) => Err(error),
        Ok(Err(Failure::Broken(error))) => Err(broken(&row, error)),
    }
}

enum Failure {
    Refused(ServiceError),
    Broken(RemoteError),
}

/// Sends the input; returns only where the link breaks.
async fn feed(stdin: &RemoteInput, bytes: &[u8]) -> RemoteError {
    let sent = async {
        stdin.data(bytes).await?;
        stdin.end().await
    };
    match sent.await {
        // A process that has ended stops its stream; its end is what comes next.
        Ok(()) | Err(RemoteError::Broken(hoody_protocol::stream::StreamError::Write(_))) => {
            std::future::pending().await
        }
        Err(error) => error,
    }
}

async fn outcome(process: &mut RemoteProcess, most: u64) -> Result<ExecOutcome, Failure> {
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    loop {
        let (kept, bytes) = match process.next().await.map_err(Failure::Broken)? {
            ProcessOutput::Output(bytes) => (&mut stdout, bytes),
            ProcessOutput::Error(bytes) => (&mut stderr, bytes),
            ProcessOutput::Ended(end) => {
                stdout.dropped += end.output_dropped;
                stderr.dropped += end.error_dropped;
                return Ok(ExecOutcome { stdout, stderr, end });
            }
            ProcessOutput::Failed(cause) => return Err(Failure::Refused(refused(cause))),
            ProcessOutput::Started | ProcessOutput::Connected { .. } | ProcessOutput::Credit(_) => continue,
        };
        // The node keeps to the number; nobody relies on it.
        let room = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(kept.bytes.len());
        kept.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        kept.dropped += bytes.len().saturating_sub(room) as u64;
        process.taken(bytes.len()).await.map_err(Failure::Broken)?;
    }
}
