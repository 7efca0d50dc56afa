//! `admin new-epoch`: for a database that was restored by other means than `restore`, a database server's own
//! for example: nodes then take what it says, though they hold newer.

use super::super::{CliError, epoch_in_words, open};
use crate::{
    config::Settings,
    store::{StoreError, epoch, replica},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let app = open(arguments.settings.resolve()?).await?;
    let outcome = async {
        let mut tx = app.store.begin().await?;
        if replica::alive(&mut tx).await? > 0 {
            return Err(CliError::Other("a control plane serves on this database: stop it first".to_owned()));
        }
        let begun = epoch::begin(&mut tx).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(begun)
    };
    let outcome = outcome.await;
    app.store.close().await;
    let begun = outcome?;
    println!("epoch {} begins; {}", begun.epoch, epoch_in_words(begun));
    Ok(())
}
