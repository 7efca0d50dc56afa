//! `image import`, `image pull`, `image list`, `image delete`, `image collect`: the catalogue from the command line of
//! the machine with the data folder. They may run beside a serving control plane.

use crate::{
    config::{Config, ConfigError, Settings},
    service::container::pull::client,
    service::image::{
        self, CollectError,
        icon::{Icon, IconError, store_icon},
        import::{ImportError, ImportRequest, Naming, Overrides, Platform, import},
        pull::{CatalogueError, pull_into_catalogue},
        registry::{Credentials, Holder, Progress, PullRequest, Reference},
    },
    store::{
        Store, StoreError,
        image::{self as images, Filter, ImageRow, Order},
    },
};
use clap::{Args, Subcommand};
use std::{
    io::{self, BufRead, Read, Write},
    path::PathBuf,
    time::Duration,
};
use zeroize::Zeroizing;

/// Bytes of a registry's password.
const MAX_PASSWORD_BYTES: u64 = 4096;
/// How often a pull says how far it is.
const SHOW_INTERVAL: Duration = Duration::from_secs(2);

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
    /// Fetch an image from a registry into the catalogue, or replace the one of that name
    Pull(Box<PullArgs>),
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
    #[command(flatten)]
    described: Described,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct PullArgs {
    /// Name in the catalogue: os/release[/variant], for example debian/12
    name: String,
    /// The image: host[:port]/name[:tag][@sha256:…], for example docker.io/library/debian:12
    reference: Reference,
    /// os/architecture[/variant]: which image of several
    #[arg(long, default_value_t = Platform::here())]
    platform: Platform,
    /// User for the registry; the password is read from standard input
    #[arg(long)]
    username: Option<String>,
    #[command(flatten)]
    described: Described,
    #[command(flatten)]
    settings: Settings,
}

/// What is said of an image, and over its own configuration.
#[derive(Debug, Args)]
struct Described {
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
    /// A picture of the image: PNG, JPEG, WebP or GIF
    #[arg(long, value_name = "FILE")]
    icon: Option<PathBuf>,
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
    /// The pull failed.
    #[error(transparent)]
    Pull(#[from] CatalogueError),
    /// The icon is none.
    #[error("icon {}", .0.display())]
    Icon(PathBuf, #[source] IconError),
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
            let icon = args.described.read_icon()?;
            let request = args.into_request();
            with_store(settings, async |config, store| {
                let row = import(store, &config.data_dir, request).await?;
                put_icon(store, &row, icon).await?;
                Ok(writeln!(io::stdout(), "{}", line(&row))?)
            })
            .await
        }
        Command::Pull(mut args) => {
            let settings = std::mem::take(&mut args.settings);
            let icon = args.described.read_icon()?;
            let credentials = args.username.take().map(read_credentials).transpose()?;
            with_store(settings, async |config, store| {
                let PullArgs { name, reference, platform, described, .. } = *args;
                let max_bytes = config.registries.max_image_bytes;
                let request = PullRequest { reference, platform, credentials, max_bytes, holder: Holder::Operator };
                let registry = client(config).await.map_err(CatalogueError::from)?;
                let described = described.into_parts(name);
                let progress = Progress::default();
                let pulled = pull_into_catalogue(store, &config.data_dir, &registry, request, described, &progress);
                let row = show(pulled, &progress).await?;
                put_icon(store, &row, icon).await?;
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
        let (naming, overrides) = self.described.into_parts(self.name);
        ImportRequest { naming, source: self.source, platform: self.platform, reference: self.reference, overrides }
    }
}

impl Described {
    fn into_parts(self, name: String) -> (Naming, Overrides) {
        let Self { description, os, release, variant, env, workdir, user, stop_signal, command, icon: _ } = self;
        (Naming { name, description, os, release, variant }, Overrides { command, env, workdir, user, stop_signal })
    }

    fn read_icon(&self) -> Result<Option<Icon>, ImageCommandError> {
        let Some(path) = &self.icon else { return Ok(None) };
        let failed = |error| ImageCommandError::Icon(path.clone(), error);
        Icon::read(path).map(Some).map_err(failed)
    }
}

async fn put_icon(store: &Store, row: &ImageRow, icon: Option<Icon>) -> Result<(), StoreError> {
    match icon {
        Some(icon) => store_icon(store, row.id, &icon).await,
        None => Ok(()),
    }
}

/// The password is the first line of standard input: other users can see arguments.
fn read_credentials(username: String) -> Result<Credentials, ImageCommandError> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().take(MAX_PASSWORD_BYTES).read_line(&mut line)?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    Ok(Credentials { username, password })
}

/// Says every few seconds how far it is.
async fn show<T>(work: impl Future<Output = T>, progress: &Progress) -> T {
    let mut ticks = tokio::time::interval(SHOW_INTERVAL);
    ticks.tick().await;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let (done, total) = progress.bytes();
                // Only a word on the way: an output that is closed changes nothing.
                let _ = writeln!(io::stderr(), "{} of {} MiB", done >> 20, total >> 20);
            }
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
