//! What this server must have for containers to run, checked by trying it where that changes nothing, and
//! by reading otherwise. Trials happen in throwaway namespaces and are gone when the check ends. Every
//! group of checks has a deadline, so that one that hangs in the kernel is a finding like any other.

mod commands;
mod folders;
mod identity;
mod kernel;
mod limits;
mod network;
mod programs;
mod relay;
mod time;

use crate::config::Config;
use serde::Serialize;
use std::{future::Future, path::Path, time::Duration};

/// The time one group of checks has.
const GROUP_DEADLINE: Duration = Duration::from_secs(25);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The agent works, with a restriction or a risk.
    Warning,
    /// The agent, or some of its containers, cannot work.
    Failed,
}

impl Status {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which group it belongs to.
    pub group: &'static str,
    /// What was checked.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// One sentence that says what to do; `None` where nothing is to be done.
    pub fix: Option<String>,
}

impl Check {
    fn ok(group: &'static str, name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { group, name: name.into(), status: Status::Ok, found: found.into(), fix: None }
    }

    fn warning(group: &'static str, name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Warning, fix: Some(fix.into()), ..Self::ok(group, name, found) }
    }

    fn failed(group: &'static str, name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Failed, fix: Some(fix.into()), ..Self::ok(group, name, found) }
    }
}

/// Checks everything with the configuration in this file; where it cannot be used, the rest is checked with
/// the defaults.
pub async fn examine(path: &Path) -> Vec<Check> {
    let (config, first) = match Config::load(path) {
        Ok(config) => (config, Check::ok("configuration", "file", path.display().to_string())),
        Err(error) => {
            let fix = format!("write a valid configuration to {}; an empty file means the defaults", path.display());
            (Config::default(), Check::failed("configuration", "file", chain(&error), fix))
        }
    };
    let (config, mut checks) = (&config, vec![first]);
    checks.extend(group("programs", programs::check(config)).await);
    checks.extend(group("kernel", kernel::check(config)).await);
    checks.extend(group("network", network::check(config)).await);
    checks.extend(group("limits", async { limits::check() }).await);
    checks.extend(group("folders", folders::check(config)).await);
    checks.extend(group("relay", relay::check(config)).await);
    checks.extend(group("commands", async { commands::check(config) }).await);
    checks.extend(group("time", async { time::check() }).await);
    checks.extend(group("control plane", identity::check(config)).await);
    checks
}

async fn group(name: &'static str, checks: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    tokio::time::timeout(GROUP_DEADLINE, checks).await.unwrap_or_else(|_| {
        let found = format!("no answer within {} s", GROUP_DEADLINE.as_secs());
        vec![Check::failed(
            name,
            "all",
            found,
            "look into the kernel log (`dmesg`) for a device or file system that hangs",
        )]
    })
}

/// Runs checks that block on a thread of their own.
async fn blocking(name: &'static str, checks: impl FnOnce() -> Vec<Check> + Send + 'static) -> Vec<Check> {
    tokio::task::spawn_blocking(checks).await.unwrap_or_else(|error| {
        vec![Check::failed(name, "all", error.to_string(), "report this as a defect of the agent")]
    })
}

/// An error with its causes, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
