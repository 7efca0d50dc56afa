//! `admin rotate-master-key`: seals every stored secret with a new master key. The control plane must not
//! run meanwhile, and is started with the new file afterwards.

use super::super::{CliError, open};
use crate::{config::Settings, keys::MasterKey};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// File of the new master key; made where there is none
    new_file: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = arguments.settings.resolve()?;
    if config.master_key.is_none() && config.master_key_file == arguments.new_file {
        return Err(CliError::Other("the new file is the one in use: name another".to_owned()));
    }
    let app = open(config).await?;
    // On disk before anything is sealed with it.
    let new = MasterKey::load_or_create(&arguments.new_file)?;
    hoody_fault::point!("master.made");
    let rotated = app.keys.rotate_master(&app.store, &new).await;
    app.store.close().await;
    let secrets = rotated?;
    println!(
        "{secrets} secrets are sealed with {0}: set master_key_file to {0} and start",
        arguments.new_file.display()
    );
    Ok(())
}
