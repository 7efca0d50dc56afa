//! Runs the external programs: bounded output, a deadline, and the whole process group killed when
//! it passes or when the caller goes away.

use super::RuntimeError;
use hoody_protocol::id::ContainerId;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// Bytes kept of each output stream; what exceeds it is read and dropped.
const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// Characters of a program's complaint that go into an error.
const MAX_MESSAGE_CHARS: usize = 2048;

/// One call of a program.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// For errors.
    pub(super) id: ContainerId,
    /// The program.
    pub(super) program: &'a Path,
    /// What it is asked to do, for errors; not added to the arguments.
    pub(super) verb: &'static str,
    /// Arguments.
    pub(super) args: Vec<OsString>,
    /// Standard input; empty: `/dev/null`.
    pub(super) stdin: Vec<u8>,
    /// The time it has.
    pub(super) deadline: Duration,
}

impl Call<'_> {
    /// Runs it to its end; its standard output where it succeeded.
    pub(super) async fn run(self) -> Result<Vec<u8>, RuntimeError> {
        let mut command = Command::new(self.program);
        command.args(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command.stdin(if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        let child = command.spawn().map_err(|source| RuntimeError::Program { program: self.program.into(), source })?;
        let mut group = Group::new(child);
        let stdin = group.child.stdin.take();
        let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
        let work = async {
            let feed = async {
                if let Some(mut pipe) = stdin {
                    // A program that does not read its input says so by its exit code.
                    let _ = pipe.write_all(&self.stdin).await;
                }
            };
            let (_, out, err) = tokio::join!(feed, bounded(stdout), bounded(stderr));
            (group.child.wait().await, out, err)
        };
        let answer = tokio::time::timeout(self.deadline, work).await;
        let Ok((status, out, err)) = answer else {
            return Err(RuntimeError::Deadline { id: self.id, what: self.verb, limit: self.deadline });
        };
        group.reaped = true;
        let status = status.map_err(|source| RuntimeError::Program { program: self.program.into(), source })?;
        if status.success() {
            return Ok(out);
        }
        Err(failed(self.program, self.verb, status.to_string(), &err))
    }
}

/// A program's failure, with what it said cut to a bound and to printable characters.
pub(super) fn failed(program: &Path, verb: &'static str, status: String, complaint: &[u8]) -> RuntimeError {
    let text = String::from_utf8_lossy(complaint);
    let message = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect();
    let program = PathBuf::from(program.file_name().unwrap_or(program.as_os_str())).display().to_string();
    RuntimeError::Failed { program, verb, status, message }
}

async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        // An unreadable pipe has nothing more to say; the exit code decides.
        let _ = (&mut stream).take(MAX_OUTPUT_BYTES as u64).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    kept
}

/// Kills the process group when dropped before its leader was reaped.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) child: Child,
    /// Set once the leader was waited for: its number may then belong to another group.
    pub(super) reaped: bool,
}

impl Group {
    /// Takes over a child that leads its own process group.
    pub(super) fn new(child: Child) -> Self {
        Self { child, reaped: false }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // `id` is `None` once the child was waited for, so the number is still ours.
        if let Some(pid) = self.child.id() {
            // SAFETY: kill takes two integers; a negative number names the process group that the
            // child leads since it was spawned.
            unsafe { libc::kill(-(pid as i32), libc::SIGKILL) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> Call<'static> {
        let args = vec!["-c".into(), script.into()];
        let id = ContainerId::from_bytes([7; 12]);
        Call { id, program: Path::new("/bin/sh"), verb: "test", args, stdin: Vec::new(), deadline }
    }

    #[tokio::test]
    async fn output_is_kept_up_to_its_bound() {
        let out = shell("head -c 1000000 /dev/zero", Duration::from_secs(20)).run().await.unwrap();
        assert_eq!(out.len(), MAX_OUTPUT_BYTES);
    }

    #[tokio::test]
    async fn failure_carries_what_the_program_said() {
        let error =
            shell("printf 'no\\033[1m such thing' >&2; exit 3", Duration::from_secs(20)).run().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("such thing") && text.contains('3') && !text.contains('\x1b'), "{text}");
    }

    #[tokio::test]
    async fn input_reaches_the_program() {
        let call = Call { stdin: b"hello".to_vec(), ..shell("cat", Duration::from_secs(20)) };
        assert_eq!(call.run().await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let call = Call { program: Path::new("/nonexistent/runtime"), ..shell("", Duration::from_secs(1)) };
        let error = call.run().await.unwrap_err();
        assert!(matches!(error, RuntimeError::Program { ref program, .. } if program.ends_with("runtime")), "{error}");
    }

    #[tokio::test]
    async fn the_deadline_kills_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let error = shell(&script, Duration::from_millis(300)).run().await.unwrap_err();
        assert!(matches!(error, RuntimeError::Deadline { .. }), "{error}");
        let grandchild: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        if let Some(process) = super::super::pidfd::ProcessId::of(grandchild).unwrap()
            && let Some(handle) = process.open().unwrap()
        {
            assert!(handle.ended_within(Duration::from_secs(5)).await.unwrap());
        }
    }
}
