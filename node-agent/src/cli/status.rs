//! `hoody-agent status`: asks the running agent.

use super::Failure;
use crate::{agent::StatusAnswer, config::Config, link::LinkState};
use clap::Args;
use hoody_protocol::time::now_ms;
use std::{process::ExitCode, time::Duration};
use tokio::{io::AsyncReadExt, net::UnixStream};

/// Time for the agent to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of the largest answer.
const ANSWER_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn execute(config: &Config, command: Status) -> Result<ExitCode, Failure> {
    let path = config.status_socket();
    let ask = async {
        let stream = UnixStream::connect(&path).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, ask).await.map_err(|_| "the agent does not answer")?;
    let answer = answer.map_err(|error| format!("the agent does not run ({}: {error})", path.display()))?;
    if command.json {
        println!("{}", String::from_utf8_lossy(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let answer: StatusAnswer = serde_json::from_slice(&answer)?;
    let seconds = |since: u64| now_ms().saturating_sub(since) / 1000;
    match &answer.link {
        LinkState::Up { since } => println!("link: up for {} s", seconds(*since)),
        LinkState::Down { since, reason } => println!("link: down for {} s: {reason}", seconds(*since)),
    }
    println!("reports not acknowledged: {}", answer.unacknowledged);
    println!("containers: {}", answer.containers.len());
    for (id, view) in &answer.containers {
        let cause = view.cause.as_ref().map(|cause| format!("  {}", cause.message)).unwrap_or_default();
        println!("  {id}  {:9} {:15} version {}{cause}", view.state.as_str(), view.address, view.version);
    }
    Ok(ExitCode::SUCCESS)
}
