//! Starts the first process of a created container.
//!
//! runc's init waits in its start pipe (`exec.fifo`, a FIFO in the container's state folder): it opens it
//! for writing, writes one byte as soon as somebody reads, and then runs the program. `runc start` is that
//! reader and removes the pipe; it takes 6 to 16 ms, nearly all of it for loading the program and its state.
//! Here the agent reads the pipe itself. What the runtime knows follows from the pipe being there, so it
//! agrees with us. Other runtimes wait in other ways: theirs, and a runc without the pipe, are asked.

use super::{OciRuntime, RuntimeError, error::io, record::Made, view};
use hoody_protocol::id::ContainerId;
use std::{ffi::OsStr, path::Path, time::Duration};
use tokio::{io::AsyncReadExt, net::unix::pipe};

/// The runtime whose start pipe is known.
const RUNC: &str = "runc";
/// How long the runtime has for what takes a few milliseconds.
const LIMIT: Duration = Duration::from_secs(15);
const VERB: &str = "start";

impl OciRuntime {
    /// Lets the waiting first process go on.
    pub(super) async fn start_first_process(&self, id: ContainerId, made: &Made) -> Result<(), RuntimeError> {
        let pipe = self.layout.runtime_state(id).join(view::START_PIPE);
        if self.config.program.file_name() == Some(OsStr::new(RUNC)) && pipe.exists() {
            return match tokio::time::timeout(LIMIT, read(&pipe, made)).await {
                Ok(started) => started,
                Err(_elapsed) => Err(RuntimeError::Deadline { id, what: VERB, limit: LIMIT }),
            };
        }
        let args = vec![VERB.into(), id.to_string().into()];
        self.call(id, VERB, args, Vec::new(), LIMIT).await.map(drop)
    }
}

/// Reads the byte and removes the pipe. The first process may not have come as far as to wait for us.
async fn read(path: &Path, made: &Made) -> Result<(), RuntimeError> {
    let gone = || RuntimeError::Process {
        action: VERB,
        pid: made.first.pid,
        source: std::io::Error::other("it ended before it was started"),
    };
    if !waits(made)? {
        // An earlier agent read the byte and did not live to remove the pipe.
        return remove(path);
    }
    let mut pipe = pipe::OpenOptions::new().open_receiver(path).map_err(io("open", path))?;
    let first = made.first.open()?.ok_or_else(gone)?;
    let mut byte = [0];
    let count = tokio::select! {
        biased;
        count = pipe.read(&mut byte) => count.map_err(io("read", path))?,
        ended = first.ended() => {
            ended?;
            0
        }
    };
    if count == 0 {
        return Err(gone());
    }
    remove(path)
}

fn remove(path: &Path) -> Result<(), RuntimeError> {
    std::fs::remove_file(path).map_err(io("remove", path))
}

/// True while the first process still is runc's init, whose command line is `<path of runc> init`.
fn waits(made: &Made) -> Result<bool, RuntimeError> {
    let path = format!("/proc/{}/cmdline", made.first.pid);
    let line = std::fs::read(&path).map_err(io("read", path))?;
    let mut arguments = line.split(|&byte| byte == 0);
    let program = arguments.next().unwrap_or_default();
    Ok(program.ends_with(RUNC.as_bytes()) && arguments.next() == Some(b"init"))
}
