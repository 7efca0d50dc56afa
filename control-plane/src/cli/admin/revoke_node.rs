//! `admin revoke-node`: keeps a server's agent out for good. A serving control plane closes its links within
//! a second or two.

use super::super::{CliError, open};
use crate::{config::Settings, service::enrolment};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The server's id or name
    server: String,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let app = open(arguments.settings.resolve()?).await?;
    let outcome = match super::server(&app, &arguments.server).await? {
        Some(id) => enrolment::revoke(&app, id).await.map_err(CliError::from),
        None => Err(CliError::Other(format!("there is no server {:?}", arguments.server))),
    };
    app.store.close().await;
    outcome
}
