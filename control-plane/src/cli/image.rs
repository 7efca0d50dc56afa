//! `image import`, `image list`, `image delete`, `image collect`: the catalogue from the command line of
//! the machine with the data folder. They may run beside a serving control plane.

use crate::{
    config::{Config, ConfigError, Settings},
    service::image::{
        self, CollectError,
        import::{ImportError, ImportRequest, Overrides, Platform, import},
    },
    store::{
        Store, StoreError,
        image::{self as images, Filter, ImageRow, Order},
    },
};
use clap::{Args, Subcommand};
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// The catalogue of images.
#[derive(Debug, Args)]
pub(super) struct ImageArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put an image into the catalogue, or replace the one of that name
    Import(Box<ImportArgs>),
    /// Show the catalogue
    List(Box<Settings>),
    /// Take an image out of the catalogue; containers made from it stay as they are
    Delete {
        /// The image's name
        name: String,
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Remove blobs that no image and no container needs
    Collect(Box<Settings>),
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Name in the catalogue: os/release[/variant], for example debian/12
    name: String,
    /// A root file system (tar, tar.gz, tar.zst), an OCI image layout folder or an OCI archive
    source: PathBuf,
    /// os/architecture[/variant]: which image of several, and what a root file system is for
    #[arg(long, default_value_t = Platform::here())]
    platform: Platform,
    /// Which image of a layout that has several
    #[arg(long)]
    reference: Option<String>,
    /// A sentence about the image
    #[arg(long)]
    description: Option<String>,
    /// Distribution [default: the name's first segment]
    #[arg(long)]
    os: Option<String>,
    /// Its release [default: the name's second segment]
    #[arg(long)]
    release: Option<String>,
    /// Flavour [default: the name's third segment]
    #[arg(long)]
    variant: Option<String>,
    /// Environment variable of the first process, KEY=value; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Working directory of the first process
    #[arg(long)]
    workdir: Option<String>,
    /// User of the first process: uid[:gid] or name[:group]
    #[arg(long)]
    user: Option<String>,
    /// Signal that asks the first process to end, for example SIGTERM
    #[arg(long)]
    stop_signal: Option<String>,
    /// Command line of the first process; must come last
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "WORD")]
    command: Vec<String>,
    #[command(flatten)]
    settings: Settings,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageCommandError {
    /// The settings are wrong.
    #[error("settings")]
    Config(#[from] ConfigError),
    /// The import failed.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The collection failed.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// There is no such image.
    #[error("there is no image {0:?}: see \"image list\"")]
    Unknown(String),
    /// The data folder could not be made, or the answer not written.
    #[error("data folder or output")]
    Io(#[from] io::Error),
}

/// Runs a command against the settings' database and data folder. Needs no key: nothing of an image is secret.
pub(super) async fn run(args: ImageArgs) -> Result<(), ImageCommandError> {
    match args.command {
        Command::Import(mut args) => {
            let settings = std::mem::take(&mut args.settings);
            let request = args.into_request();
            with_store(settings, async |config, store| {
                let row = import(store, &config.data_dir, request).await?;
                Ok(writeln!(io::stdout(), "{}", line(&row))?)
            })
            .await
        }
        Command::List(settings) => {
            with_store(*settings, async |_, store| {
                let (rows, _) = images::list(store, &Filter::default(), Order::Name, u32::MAX, 0).await?;
                let lines: String = rows.iter().map(|row| line(row) + "\n").collect();
                Ok(io::stdout().write_all(lines.as_bytes())?)
            })
            .await
        }
        Command::Delete { name, settings } => {
            with_store(*settings, async |config, store| {
                // The exact name: a shorthand that means something else tomorrow is no safe order.
                let row = images::find_by_name(store, &name).await?;
                let row = row.ok_or_else(|| ImageCommandError::Unknown(name.clone()))?;
                let mut transaction = store.begin().await?;
                images::delete(&mut transaction, row.id).await?;
                transaction.commit().await.map_err(StoreError::from)?;
                collect(config, store).await
            })
            .await
        }
        Command::Collect(settings) => with_store(*settings, async |config, store| collect(config, store).await).await,
    }
}

async fn with_store(
    settings: Settings,
    work: impl AsyncFnOnce(&Config, &Store) -> Result<(), ImageCommandError>,
) -> Result<(), ImageCommandError> {
    let config = settings.resolve()?;
    super::make_data_dir(&config.data_dir)?;
    let store = Store::open(config.database_url.reveal()).await?;
    let result = work(&config, &store).await;
    store.close().await;
    result
}

async fn collect(config: &Config, store: &Store) -> Result<(), ImageCommandError> {
    let collected = image::collect_blobs(store, &config.data_dir).await?;
    Ok(writeln!(io::stdout(), "{} blobs removed, {} bytes", collected.blobs, collected.bytes)?)
}

fn line(row: &ImageRow) -> String {
    format!("{} {} {} {} bytes {}", row.id, row.name, row.architecture, row.size_bytes, row.spec.digest)
}

impl ImportArgs {
    fn into_request(self) -> ImportRequest {
        ImportRequest {
            name: self.name,
            source: self.source,
            platform: self.platform,
            reference: self.reference,
            description: self.description,
            os: self.os,
            release: self.release,
            variant: self.variant,
            overrides: Overrides {
                command: self.command,
                env: self.env,
                workdir: self.workdir,
                user: self.user,
                stop_signal: self.stop_signal,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        image: ImageArgs,
    }

    #[test]
    fn a_whole_import_command_parses() {
        let words = "image import debian/12 rootfs.tar --platform linux/arm64 --env A=1 --env B=2 --stop-signal SIGTERM \
                     --command /bin/sh -c env";
        let program = Program::try_parse_from(words.split_whitespace()).unwrap();
        let Command::Import(args) = program.image.command else { panic!("another command") };
        let request = args.into_request();
        assert_eq!(request.overrides.command, ["/bin/sh", "-c", "env"]);
        assert_eq!(request.overrides.env, ["A=1", "B=2"]);
        assert_eq!(request.platform.to_string(), "linux/arm64");
    }

    #[test]
    fn a_platform_that_is_none_is_refused() {
        let words = ["image", "import", "debian/12", "rootfs.tar", "--platform", "amd64"];
        assert!(Program::try_parse_from(words).is_err());
    }
}
