//! `keys rotate`: a new signing key in the place of the old one.

use super::{CliError, open};
use crate::{config::Settings, keys::ROTATABLE};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a new signing key; the old one goes on verifying until what it signed has expired
    Rotate(Box<Rotate>),
}

#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    /// What the key is for
    #[arg(value_parser = ROTATABLE)]
    purpose: String,
    /// Forget the old key at once: what it signed is void. For a key that others may have
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    let Command::Rotate(arguments) = command;
    let app = open(arguments.settings.resolve()?).await?;
    let rotated = app.keys.rotate(&app.store, &arguments.purpose, arguments.revoke).await;
    app.store.close().await;
    println!("{}", rotated?);
    Ok(())
}
