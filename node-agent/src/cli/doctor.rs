//! `hoody-agent doctor`: prints every check, and how to fix what is missing.

use super::Failure;
use crate::doctor::{self, Check, Status};
use clap::Args;
use std::{path::Path, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Exit code 1 where something failed; warnings are not failures.
pub(super) async fn execute(config: &Path, command: Doctor) -> Result<ExitCode, Failure> {
    let checks = doctor::examine(config).await;
    if command.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        checks.iter().for_each(print);
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        println!("{} ok, {} warnings, {} failed", count(Status::Ok), count(Status::Warning), count(Status::Failed));
    }
    let failed = checks.iter().any(|check| check.status == Status::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(check: &Check) {
    println!("{:8} {:14} {:22} {}", check.status.as_str(), check.group, check.name, check.found);
    if let Some(fix) = &check.fix {
        println!("{:8} -> {fix}", "");
    }
}
