//! `restore`: puts a backup in the place of the database, and begins a new epoch, so that nodes take what the
//! restored state says and keep what it does not know.

use super::{CliError, io_error, make_data_dir};
use crate::{
    config::Settings,
    keys::Keys,
    store::{
        Store,
        backup::{self, Target},
    },
};
use chrono::{DateTime, Utc};
use std::{fs::File, path::PathBuf};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// A file that `backup` wrote
    file: PathBuf,
    /// Give up what the database holds
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = arguments.settings.resolve()?;
    let file = File::open(&arguments.file).map_err(io_error(format!("open {}", arguments.file.display())))?;
    make_data_dir(&config.data_dir).map_err(io_error(format!("make the data folder {}", config.data_dir.display())))?;
    // Before anything is replaced.
    let master = config.open_master_key()?;
    let store = Store::connect(config.database_url.reveal()).await?;
    let target = if arguments.replace { Target::Replace } else { Target::Empty };
    let outcome = async {
        let loaded = backup::load(&store, file, target).await?;
        let opens = Keys::open(&store, master).await;
        Ok::<_, CliError>((loaded, opens))
    };
    let outcome = outcome.await;
    store.close().await;
    let (loaded, opens) = outcome?;
    let taken_at = DateTime::<Utc>::from_timestamp_millis(loaded.taken_at as i64).unwrap_or_default();
    println!("restored {} rows as of {taken_at:.0}", loaded.rows);
    println!("epoch {} begins; {}", loaded.begun.epoch, super::epoch_in_words(loaded.begun));
    if let Err(error) = opens {
        return Err(CliError::Other(format!(
            "the database is restored, but not with its master key: {}; put the key of that time in place",
            crate::error::chain(&error)
        )));
    }
    Ok(())
}
