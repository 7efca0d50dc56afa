//! The command line: one file per command.

mod doctor;
mod exec;
mod join;
mod run;
mod status;

use crate::{
    config::{Config, LogFormat},
    error::chain,
    images::unpack,
    runtime::exec_monitor,
    storage::receive,
};
use clap::{Parser, Subcommand};
use nix::sys::stat::{Mode, umask};
use std::{path::PathBuf, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// The agent of a hoody server.
#[derive(Debug, Parser)]
#[command(name = "hoody-agent", version, arg_required_else_help = true)]
struct Arguments {
    /// The configuration file.
    #[arg(long, env = "HOODY_AGENT_CONFIG", default_value = "/etc/hoody/agent.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this server with the control plane that made the token.
    Join(join::Join),
    /// Run the agent.
    Run,
    /// Show the link and the containers of the running agent.
    Status(status::Status),
    /// Check whether this server has what the agent needs, and say how to fix what it has not.
    Doctor(doctor::Doctor),
    /// Run a program inside a container of this server.
    Exec(exec::Exec),
}

/// A command's error; its chain is printed.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Modes are what the code says, for containers pass through folders of ours; what is private says so itself. A unit or a
    // shell with 077 would close those folders, and be inherited by what runs in containers.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    // The sandboxed children that unpack images and receive streams are this program again, as is what looks after an
    // exec; they must not touch anything else.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == unpack::SUBCOMMAND => return unpack::child_main(arguments),
        Some(first) if first == receive::SUBCOMMAND => return receive::child_main(arguments),
        Some(first) if first == exec_monitor::SUBCOMMAND => return exec_monitor::child_main(arguments),
        _ => {}
    }
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("hoody-agent: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    if let Command::Doctor(command) = arguments.command {
        // A configuration that cannot be used is one of the things it finds.
        log_to_stderr(&Config::default(), false);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let exit = runtime.block_on(doctor::execute(&arguments.config, command));
        // A check that hangs in the kernel must not keep the program.
        runtime.shutdown_background();
        return exit;
    }
    let config = Config::load(&arguments.config)?;
    let long_running = matches!(arguments.command, Command::Run);
    log_to_stderr(&config, long_running);
    if long_running {
        keep_few_heaps();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Join(command) => join::execute(&config, command).await,
            Command::Run => run::execute(config).await,
            Command::Status(command) => status::execute(&config, command).await,
            Command::Doctor(_) => unreachable!("handled above"),
            Command::Exec(command) => exec::execute(&config, command).await,
        }
    })
}

/// The C library gives each of many threads a heap, and each heap keeps what a burst of starts once needed. Measured
/// with 100 containers: 34 MiB become 26.
fn keep_few_heaps() {
    const HEAPS: libc::c_int = 2;
    // SAFETY: a plain call with integers, before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}

fn log_to_stderr(config: &Config, long_running: bool) {
    let default = if long_running { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("HOODY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
