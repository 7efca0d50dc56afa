//! The program: command line, start, end.

use crate::{
    config::{Config, LogFormat},
    containers::Containers,
    control::server,
    shared::Shared,
};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{path::PathBuf, process::ExitCode, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Carries containers' connections through the proxies that their owners chose.
#[derive(Debug, Parser)]
#[command(name = "hoody-proxy", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, env = "HOODY_PROXY_CONFIG", default_value = "/etc/hoody/proxy.toml")]
    config: PathBuf,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match execute(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let first: &(dyn std::error::Error + 'static) = error.as_ref();
            let causes = std::iter::successors(Some(first), |error| error.source());
            eprintln!("hoody-proxy: {}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config)?;
    let filter = EnvFilter::try_from_env("HOODY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    check_descriptors(&config)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(config))
}

/// A relayed connection takes two descriptors, and up to four more while it is busy.
fn check_descriptors(config: &Config) -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    let needed = config.connections as u64 * 2 + 4096;
    if hard < needed {
        tracing::warn!(limit = hard, needed, "fewer open files are allowed than `connections` may need");
    }
    Ok(())
}

async fn run(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let listener = server::open(&config.socket).await?;
    let shared = Arc::new(Shared::new(config)?);
    let containers = Arc::new(Containers::new(shared.clone()));
    let serving = tokio::spawn(server::serve(listener, shared.clone(), containers));
    notify(&[sd_notify::NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog());
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hangup.recv() => match shared.tls.reload() {
                Ok(()) => tracing::info!("the authorities were read again"),
                Err(error) => tracing::warn!(%error, "the authorities cannot be read; those from before hold"),
            },
        }
    };
    tracing::info!(reason, "ending; containers have no way out until it runs again");
    notify(&[sd_notify::NotifyState::Stopping]);
    let _ = std::fs::remove_file(&shared.config.socket);
    watchdog.abort();
    serving.abort();
    Ok(())
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
