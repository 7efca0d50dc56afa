//! A child process whose output goes to a file, ended when dropped.

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The time a process has to end when asked.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Lines of a log that are shown after a failure.
const LOG_LINES: usize = 40;

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn start(what: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {what}"))?;
        Ok(Self { child, what: what.to_owned(), log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Fails where it has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}\n{}", self.what, log_end(&self.log)),
            None => Ok(()),
        }
    }

    /// The signal that ended it; `None` while it runs. An end in another way is an error.
    pub fn killed(&mut self) -> Result<Option<i32>> {
        match self.child.try_wait()? {
            None => Ok(None),
            Some(status) => match status.signal() {
                Some(signal) => Ok(Some(signal)),
                None => bail!("{} ended by itself: {status}\n{}", self.what, log_end(&self.log)),
            },
        }
    }

    /// Kills it without warning.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, waits, and fails where it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM)?;
        let end = Instant::now() + STOP_DEADLINE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                self.kill()?;
                bail!("{} did not end within {} s", self.what, STOP_DEADLINE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

/// The last lines of a log, for messages.
pub(super) fn log_end(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    format!("--- the end of {}\n{end}", log.display())
}

/// Runs a program to its end; its output is in the error where it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
