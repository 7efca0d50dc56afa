//! `backup`: writes the whole database to a file, beside a control plane that serves or without one.

use super::{CliError, io_error};
use crate::{
    config::Settings,
    store::{Store, backup},
};
use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// Only its owner reads a backup.
const MODE: u32 = 0o600;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The file to write; it must not be there yet
    file: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = arguments.settings.resolve()?;
    let store = Store::open(config.database_url.reveal()).await?;
    let written = write(&store, &arguments.file).await;
    store.close().await;
    let dumped = written?;
    println!("{} rows of {} tables written to {}", dumped.rows, dumped.tables, arguments.file.display());
    println!("not in it: the master key, and the image blobs below {}", config.data_dir.join("blobs").display());
    Ok(())
}

/// Under another name first: a file with the right name is whole.
async fn write(store: &Store, path: &std::path::Path) -> Result<backup::Dumped, CliError> {
    let failed = |what: &str| io_error(format!("{what} {}", path.display()));
    if path.exists() {
        return Err(CliError::Other(format!("{} is there already: choose another name", path.display())));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(MODE).open(&partial).map_err(failed("create"))?;
    let outcome = async {
        let mut out = BufWriter::new(&file);
        let dumped = backup::dump(store, &mut out).await?;
        out.flush().map_err(failed("write"))?;
        file.sync_all().map_err(failed("write"))?;
        hoody_fault::point!("backup.written");
        std::fs::rename(&partial, path).map_err(failed("name"))?;
        hoody_fault::point!("backup.named");
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write the folder of"))?;
        Ok(dumped)
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        // The first error is what counts.
        let _ = std::fs::remove_file(&partial);
    }
    outcome
}
