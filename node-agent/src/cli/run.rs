//! `hoody-agent run`: the agent itself, until it is told to end. Containers go on when it ends.

use super::Failure;
use crate::{agent::Agent, config::Config};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn execute(config: Config) -> Result<ExitCode, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut agent = Agent::start(config).await?;
    let closer = agent.link_closer();
    let commands = agent.commands();
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog());
    let work = agent.run();
    tokio::pin!(work);
    let reason = tokio::select! {
        error = &mut work => return Err(error),
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = commands.restart_asked() => "a command to restart",
    };
    tracing::info!(reason, "ending; containers go on");
    notify(&[sd_notify::NotifyState::Stopping]);
    if let Some(closer) = closer {
        closer.close().await;
    }
    commands.end_all().await;
    watchdog.abort();
    Ok(ExitCode::SUCCESS)
}

/// Tells systemd that the process answers, at half the interval it asks for.
async fn watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    loop {
        notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(interval / 2).await;
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not notified");
    }
}
