//! `admin revoke-node`: shuts a server's agent out for good. A running control plane sees it in the
//! database and closes the links within a second or two.

use super::super::{CliError, open};
use crate::{config::Settings, service::enrolment, store::node};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The server's name or id
    server: String,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let app = open(arguments.settings.resolve()?).await?;
    let found = match arguments.server.parse() {
        Ok(id) => node::by_id(&app.store, id).await?,
        Err(_) => node::by_name(&app.store, &arguments.server).await?,
    };
    let revoked = match found {
        Some(found) => enrolment::revoke(&app, found.id).await.map_err(CliError::from),
        None => Err(CliError::Other(format!("there is no server {}", arguments.server))),
    };
    app.store.close().await;
    revoked
}
