//! Runs a process in a container and answers with what it wrote and how it ended.

use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        json::Json,
        path::Id,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::exec::{self as service, CommandInput, ExecInput, ExecOutcome, Kept},
};
use axum::extract::State;
use base64::{Engine, engine::general_purpose::STANDARD};
use hoody_protocol::{exec::Exit, id::ContainerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

pub(in crate::api) use service::LONGEST;

/// The route, which has a time limit of its own.
pub(in crate::api) const PATH: &str = "/api/v1/containers/{id}/exec";
/// Bytes of standard input.
const MAX_STDIN_BYTES: usize = 16 << 20;
/// Bytes of a request: so much input as base64, and the rest.
pub(in crate::api) const MAX_BODY_BYTES: usize = 24 << 20;

/// A command line, or a line for the shell.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "must be a list of texts, or one text for the shell")]
enum CommandLine {
    /// Program and arguments.
    Argv(Vec<String>),
    /// A line for `/bin/sh -c`.
    Shell(String),
}

/// A process to run.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ExecBody {
    /// Program and arguments, or a line for the container's `/bin/sh`.
    #[serde(alias = "command", alias = "cmd")]
    argv: CommandLine,
    /// Variables over those of the container.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Working directory; `/` unless said.
    #[serde(default, alias = "working_dir")]
    cwd: String,
    /// `uid[:gid]` or `name[:group]` of the container's own accounts; root unless said.
    #[serde(default)]
    user: String,
    /// Standard input as text; at most 16 MiB.
    stdin: Option<String>,
    /// Standard input as base64, for bytes that are no text; at most 16 MiB of them.
    stdin_base64: Option<String>,
    /// Seconds after which it is killed with everything that it started; 60 unless said, at most 600.
    timeout: Option<f64>,
    /// Bytes of each output that are answered; 1 MiB unless said, at most 4 MiB.
    max_output_bytes: Option<u64>,
}

/// One output of a process.
#[derive(Debug, Serialize, ToSchema)]
struct ExecOutput {
    /// What it wrote: as text, or as base64 where it is not UTF-8.
    data: String,
    /// `utf-8` or `base64`.
    encoding: &'static str,
    /// Bytes of `data` as they were written.
    bytes: usize,
    /// There was more than is answered.
    truncated: bool,
    /// Bytes that are not answered.
    dropped_bytes: u64,
}

/// What became of a process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Executed {
    /// Its exit code; null where a signal ended it.
    exit_code: Option<i32>,
    /// The signal that ended it.
    signal: Option<i32>,
    /// It was killed because its time was over.
    timed_out: bool,
    stdout: ExecOutput,
    stderr: ExecOutput,
    started_at: String,
    finished_at: String,
    duration_ms: u64,
}

/// Run a process in a container
///
/// Waits for its end, at which everything that it started ends too. A client that goes away ends it as well.
#[utoipa::path(post, path = "/api/v1/containers/{id}/exec", operation_id = "containers.exec", tag = "containers",
    params(("id" = String, Path)), request_body = ExecBody,
    responses((status = 200, body = Success<Executed>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 421, body = Failure), (status = 422, body = Failure), (status = 429, body = Failure),
        (status = 501, body = Failure), (status = 502, body = Failure), (status = 503, body = Failure),
        (status = 504, body = Failure)))]
pub(super) async fn exec(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(body): Json<ExecBody>,
) -> Result<Reply<Executed>, ServiceError> {
    let field = if body.stdin.is_some() { "stdin" } else { "stdin_base64" };
    let stdin = match (body.stdin, body.stdin_base64) {
        (Some(_), Some(_)) => {
            return Err(ServiceError::invalid("stdin_base64", "cannot be given together with stdin"));
        }
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|_| ServiceError::invalid("stdin_base64", "must be base64 with padding"))?
        }
        (None, None) => Vec::new(),
    };
    if stdin.len() > MAX_STDIN_BYTES {
        return Err(ServiceError::invalid(field, format!("takes at most {MAX_STDIN_BYTES} bytes")));
    }
    let argv = match body.argv {
        CommandLine::Argv(argv) => argv,
        CommandLine::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
    };
    let command = CommandInput { argv, env: body.env, cwd: body.cwd, user: body.user };
    let input = ExecInput { command, stdin, timeout_s: body.timeout, max_output_bytes: body.max_output_bytes };
    let executed = Executed::from(service::run(&app, &caller, id, input).await?);
    let message = match (executed.timed_out, executed.exit_code, executed.signal) {
        (true, ..) => "it took too long and was killed".to_owned(),
        (_, Some(code), _) => format!("it ended with code {code}"),
        (_, None, Some(signal)) => format!("signal {signal} ended it"),
        (_, None, None) => "it ended, and nobody saw how".to_owned(),
    };
    Ok(Reply::ok(executed, message))
}

impl From<ExecOutcome> for Executed {
    fn from(ExecOutcome { stdout, stderr, end }: ExecOutcome) -> Self {
        let (exit_code, signal) = match end.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            Exit::Unknown => (None, None),
        };
        Self {
            exit_code,
            signal,
            timed_out: end.cause.is_some_and(|cause| cause.code.as_str() == "timeout"),
            stdout: stdout.into(),
            stderr: stderr.into(),
            started_at: rfc3339(end.started_at as i64),
            finished_at: rfc3339(end.ended_at as i64),
            duration_ms: end.ended_at.saturating_sub(end.started_at),
        }
    }
}

impl From<Kept> for ExecOutput {
    fn from(Kept { mut bytes, dropped }: Kept) -> Self {
        // A character that was cut in two at the end of what is kept does not make a text into bytes.
        if dropped > 0
            && let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            bytes.truncate(error.valid_up_to());
        }
        let count = bytes.len();
        let (data, encoding) = match String::from_utf8(bytes) {
            Ok(text) => (text, "utf-8"),
            Err(error) => (STANDARD.encode(error.as_bytes()), "base64"),
        };
        Self { data, encoding, bytes: count, truncated: dropped > 0, dropped_bytes: dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_base64() {
        let output = |bytes: &[u8], dropped| ExecOutput::from(Kept { bytes: bytes.to_vec(), dropped });
        assert_eq!((output("tü".as_bytes(), 0).data.as_str(), output(b"x", 0).encoding), ("tü", "utf-8"));
        let binary = output(&[0xff, 0x00], 0);
        assert_eq!((binary.data.as_str(), binary.encoding, binary.bytes), ("/wA=", "base64", 2));
        let cut = output(&"tü".as_bytes()[..2], 5);
        assert_eq!((cut.data.as_str(), cut.encoding, cut.truncated), ("t", "utf-8", true));
        assert_eq!(output(&"tü".as_bytes()[..2], 0).encoding, "base64", "the process wrote it so");
    }
}
