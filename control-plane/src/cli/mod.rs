//! The command line: one command per file.

mod admin;
mod backup;
mod image;
mod keys;
mod openapi;
mod restore;
mod serve;

use crate::{
    app::App,
    config::{Config, ConfigError, LogFormat, Settings},
    error::chain,
    keys::{KeyError, Keys, MasterKeyError},
    store::{Store, StoreError, epoch::NewEpoch, settings},
};
use clap::{Parser, Subcommand};
use std::{io, os::unix::fs::DirBuilderExt, path::Path, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// Permissions of the data folder: its owner only.
const DATA_DIR_MODE: u32 = 0o700;

#[derive(Debug, Parser)]
#[command(name = "hoody-control-plane", version, about = "The control plane of the Hoody container platform")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane
    Serve(Box<Settings>),
    /// Administer the installation, with direct access to its database
    #[command(subcommand)]
    Admin(admin::Command),
    /// The catalogue of images
    Image(image::ImageArgs),
    /// Write the whole database to a file
    Backup(Box<backup::Arguments>),
    /// Put a backup in the place of the database
    Restore(Box<restore::Arguments>),
    /// Signing keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Print the OpenAPI document
    Openapi,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings are wrong.
    #[error("settings")]
    Config(#[from] ConfigError),
    /// There is no master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The stored keys do not open.
    #[error("keys")]
    Keys(#[from] KeyError),
    /// The database failed.
    #[error("open the database")]
    Store(#[from] StoreError),
    /// The backup could not be taken or restored.
    #[error(transparent)]
    Backup(#[from] crate::store::backup::BackupError),
    /// The authority for nodes cannot be used.
    #[error(transparent)]
    Authority(Box<crate::nodes::authority::OpenError>),
    /// A command on images failed.
    #[error(transparent)]
    Image(#[from] image::ImageCommandError),
    /// The command itself was refused.
    #[error(transparent)]
    Service(#[from] crate::error::ServiceError),
    /// A file, folder or socket.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    forbid_core_dumps();
    give_memory_back();
    // Only fails where a provider is installed already, which then is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(settings) => serve::run(*settings).await,
            Command::Admin(command) => admin::run(command).await,
            Command::Keys(command) => keys::run(command).await,
            Command::Image(args) => Ok(image::run(args).await?),
            Command::Backup(arguments) => backup::run(*arguments).await,
            Command::Restore(arguments) => restore::run(*arguments).await,
            Command::Openapi => openapi::run(),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Keys and secrets in memory must not end in a file, nor be read by other processes of this user.
fn forbid_core_dumps() {
    // SAFETY: a plain call with integers; it changes a flag of this process and nothing in its memory.
    let failed = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0;
    if failed {
        eprintln!("warning: core dumps could not be switched off: {}", io::Error::last_os_error());
    }
}

/// Hashing a password takes tens of MiB for a moment. The C library would grow its idea of what is worth a mapping
/// of its own after the first one, and keep all later ones for good; and a heap for each of many threads keeps
/// what it once needed. Measured: 80 MiB of an idle process become a third.
fn give_memory_back() {
    const MAPPED_FROM_BYTES: libc::c_int = 1 << 20;
    const HEAPS: libc::c_int = 4;
    // SAFETY: plain calls with integers, before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// The whole chain, and every bad field.
fn explain(error: &CliError) -> String {
    match error {
        CliError::Service(crate::error::ServiceError::Invalid(details)) => {
            details.iter().map(|(field, problem)| format!("{field} {problem}")).collect::<Vec<_>>().join("; ")
        }
        other => chain(other),
    }
}

/// Opens everything that `config` names, making what the first start needs: data folder, database, keys.
async fn open(config: Config) -> Result<App, CliError> {
    make_data_dir(&config.data_dir).map_err(|source| CliError::Io {
        what: format!("make the data folder {}", config.data_dir.display()),
        source,
    })?;
    let master = config.open_master_key()?;
    let store = Store::open(config.database_url.reveal()).await?;
    settings::initialise(&store).await?;
    let keys = Keys::open(&store, master).await?;
    Ok(App::new(config, store, keys))
}

/// An error of a file, folder or socket.
fn io_error(what: String) -> impl FnOnce(io::Error) -> CliError {
    move |source| CliError::Io { what, source }
}

/// What an operator should know of a new epoch.
fn epoch_in_words(begun: NewEpoch) -> String {
    format!(
        "{} containers are sent again; {} open operations will not run; everybody logs in anew",
        begun.containers, begun.operations
    )
}

fn make_data_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(DATA_DIR_MODE).create(path)
}

/// Logs to standard error; `RUST_LOG` chooses which.
fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx::query=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
