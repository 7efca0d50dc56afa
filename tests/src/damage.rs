//! Damage on a server, and what the status log says of it.

use crate::{
    api::Api,
    cluster::{Server, run},
    wait,
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{fs, io::Write, path::Path, path::PathBuf, time::Duration};

/// The time in which a repair is expected, the machine being busy: the drift interval of the tests is a second.
pub const REPAIR: Duration = Duration::from_secs(20);

/// A file that takes all the room that is left; gone when dropped.
#[derive(Debug)]
pub struct Full(PathBuf);

impl Full {
    /// Fills the file system of `folder` to the last byte.
    pub fn fill(folder: &Path) -> Result<Self> {
        let this = Self(folder.join("filler"));
        let mut file = fs::File::create(&this.0)?;
        // Big steps first, then what is left between them.
        for step in [1 << 20, 4 << 10] {
            let bytes = vec![0xa5; step];
            while file.write_all(&bytes).is_ok() && file.sync_data().is_ok() {}
        }
        Ok(this)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Runs a program in the server's network namespace.
pub fn on(server: &Server, program: &str, arguments: &str) -> Result<String> {
    run(server.command(program).args(arguments.split_whitespace()))
}

/// Runs a program of the server inside the container's network namespace.
pub fn inside(server: &Server, container: &str, program: &str, arguments: &str) -> Result<String> {
    let pid = first_process(server, container)?;
    let mut command = std::process::Command::new("nsenter");
    run(command.arg(format!("--net=/proc/{pid}/ns/net")).arg("--").arg(program).args(arguments.split_whitespace()))
}

/// The bundle of a container.
pub fn bundle(server: &Server, container: &str) -> PathBuf {
    server.run_dir().join("runtime/containers").join(container)
}

/// The host pid of the container's first process, as the runtime wrote it.
pub fn first_process(server: &Server, container: &str) -> Result<i32> {
    let path = bundle(server, container).join("pid");
    Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().parse()?)
}

/// Waits until the status log has an entry with this status and this cause.
pub async fn logged(api: &Api, container: &str, status: &str, code: &str) -> Result<Value> {
    let path = format!("/api/v1/containers/{container}/status-logs?limit=100");
    let mut last = Value::Null;
    let found = wait::until("the status log", REPAIR, async || {
        last = api.get(&path).await?.data()?;
        let logs = last["logs"].as_array().context("no logs")?;
        let fits = |log: &&Value| log["to_status"] == status && log["metadata"]["cause"]["code"] == code;
        Ok(logs.iter().find(fits).cloned())
    });
    found.await.with_context(|| format!("{status} because of {code}: {last:#}"))
}
