//! `hoody-agent exec`: an operator's way into a container of this server, without the control plane.

use super::Failure;
use crate::{agent, config::Config, runtime::ExecRequest};
use clap::Args;
use hoody_protocol::id::ContainerId;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The container.
    container: ContainerId,
    /// Leave the program running and return.
    #[arg(long)]
    detach: bool,
    /// Working directory inside the container.
    #[arg(long, default_value = "/")]
    cwd: String,
    /// `uid[:gid]` or `name[:group]` of the container's accounts; root where it is not given.
    #[arg(long, default_value = "")]
    user: String,
    /// An environment variable, `KEY=VALUE`; may be given several times.
    #[arg(long = "env", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

pub(super) async fn execute(config: &Config, command: Exec) -> Result<ExitCode, Failure> {
    let runtime = agent::runtime(config)?;
    let Exec { container, detach, cwd, user, env, argv } = command;
    let status = runtime
        .exec(container, &ExecRequest { argv, env: env.into_iter().collect(), cwd, user, detach, limit: None })
        .await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give KEY=VALUE"),
    }
}
