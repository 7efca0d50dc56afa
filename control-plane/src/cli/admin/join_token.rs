//! `admin join-token`: prints a token with which a server's agent joins. It works once and for 15 minutes.

use super::super::{CliError, open};
use crate::{
    app::App,
    config::Settings,
    service::{enrolment, server::operate},
    store::server::Change,
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The server's id or name
    server: String,
    /// Make the server if there is none of this name
    #[arg(long)]
    create: bool,
    /// The tenant of a server that is made: an id, user name or e-mail address
    #[arg(long, requires = "create")]
    owner: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let app = open(arguments.settings.clone().resolve()?).await?;
    let token = token(&app, arguments).await;
    app.store.close().await;
    println!("{}", token?);
    Ok(())
}

async fn token(app: &App, arguments: Arguments) -> Result<String, CliError> {
    let id = match super::server(app, &arguments.server).await? {
        Some(id) => id,
        None if arguments.create => {
            let owner = match &arguments.owner {
                Some(named) => Some(Some(operate::account(app, named).await?)),
                None => None,
            };
            let change = Change { name: Some(arguments.server), owner, ..Change::default() };
            operate::create(app, change).await?.id
        }
        None => {
            let message = format!("there is no server {:?}: add --create to make it", arguments.server);
            return Err(CliError::Other(message));
        }
    };
    Ok(enrolment::create_join_token(app, id).await?.0)
}
