//! `admin revoke-node`: shuts a server's agent out. A running control plane closes its link within a second
//! or two.

use super::super::{CliError, open};
use crate::{app::App, config::Settings, error::ServiceError, service::enrolment, store::node};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The server's name
    server: String,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let app = open(arguments.settings.resolve()?).await?;
    let revoked = revoke(&app, &arguments.server).await;
    app.store.close().await;
    Ok(revoked?)
}

async fn revoke(app: &App, name: &str) -> Result<(), ServiceError> {
    let node = node::by_name(&app.store, name).await?.ok_or(ServiceError::NotFound("server"))?;
    enrolment::revoke(app, node.id).await
}
