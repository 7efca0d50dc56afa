//! `admin join-token`: prints a join token for a server, making the server's row first where asked to.

use super::super::{CliError, open};
use crate::{
    app::App,
    config::Settings,
    error::ServiceError,
    service::enrolment::{self, JOIN_TOKEN_LIFETIME},
    store::{StoreError, node, user},
};
use hoody_protocol::{id::ServerId, time::now_ms};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The server's name
    server: String,
    /// Make the server where there is none of this name
    #[arg(long)]
    create: bool,
    /// The user who rents the server
    #[arg(long)]
    owner: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let app = open(arguments.settings.resolve()?).await?;
    let made = make(&app, &arguments.server, arguments.create, arguments.owner.as_deref()).await;
    app.store.close().await;
    println!("{}", made?);
    eprintln!(
        "Run `hoody-agent join <token>` on the server within {} minutes. The token works once.",
        JOIN_TOKEN_LIFETIME.as_secs() / 60
    );
    Ok(())
}

async fn make(app: &App, name: &str, create: bool, owner: Option<&str>) -> Result<String, CliError> {
    let owner = match owner {
        Some(login) => match user::by_login(&app.store, login).await? {
            Some((user, _)) => Some(user.id.to_string()),
            None => return Err(ServiceError::NotFound("the owner").into()),
        },
        None => None,
    };
    let server = server(app, name, create, owner.as_deref()).await?;
    Ok(enrolment::create_join_token(app, server).await?.0)
}

/// The server of this name, with its owner set.
async fn server(app: &App, name: &str, create: bool, owner: Option<&str>) -> Result<ServerId, CliError> {
    let found = node::by_name(&app.store, name).await?;
    let mut tx = app.store.begin().await?;
    let server = match found {
        Some(found) => {
            if let Some(owner) = owner {
                node::set_owner(&mut tx, found.id, owner).await?;
            }
            found.id
        }
        None if create => {
            enrolment::check_name(name)?;
            node::create(&mut tx, name, owner, now_ms() as i64).await.map_err(ServiceError::from)?
        }
        None => return Err(CliError::Other(format!("there is no server {name}: add --create to make it"))),
    };
    tx.commit().await.map_err(StoreError::from)?;
    Ok(server)
}
