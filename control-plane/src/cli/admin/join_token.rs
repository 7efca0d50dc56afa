//! `admin join-token`: prints a token for `hoody-agent join`.

use super::super::{CliError, open};
use crate::{
    app::App,
    config::Settings,
    error::ServiceError,
    service::enrolment,
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
    /// Username of the tenant who rents the server
    #[arg(long, requires = "create")]
    owner: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(arguments: Arguments) -> Result<(), CliError> {
    let app = open(arguments.settings.resolve()?).await?;
    let token = make(&app, &arguments.server, arguments.create, arguments.owner.as_deref()).await;
    app.store.close().await;
    println!("{}", token?);
    Ok(())
}

async fn make(app: &App, name: &str, create: bool, owner: Option<&str>) -> Result<String, ServiceError> {
    let server = match node::by_name(&app.store, name).await? {
        Some(node) => node.id,
        None if create => make_server(app, name, owner).await?,
        None => return Err(ServiceError::NotFound("server")),
    };
    Ok(enrolment::create_join_token(app, server).await?.0)
}

async fn make_server(app: &App, name: &str, owner: Option<&str>) -> Result<ServerId, ServiceError> {
    let owner = match owner {
        None => None,
        Some(username) => {
            let found = user::by_login(&app.store, username).await?;
            let (user, _) = found.ok_or_else(|| ServiceError::invalid("owner", "names no account"))?;
            Some(user.id.to_string())
        }
    };
    let mut tx = app.store.begin().await?;
    let server = node::create(&mut tx, name, owner.as_deref(), now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(server)
}
