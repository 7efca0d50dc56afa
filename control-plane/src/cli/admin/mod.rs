//! `admin …`: what an operator does on the control plane's own machine.

mod create_user;
mod join_token;
mod revoke_node;
mod rotate_master_key;

use super::CliError;
use crate::{app::App, store::node};
use clap::Subcommand;
use hoody_protocol::id::ServerId;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an account
    CreateUser(Box<create_user::Arguments>),
    /// Make a token with which a server's agent joins
    JoinToken(Box<join_token::Arguments>),
    /// Keep a server's agent out for good
    RevokeNode(Box<revoke_node::Arguments>),
    /// Seal every stored secret with a new master key
    RotateMasterKey(Box<rotate_master_key::Arguments>),
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::CreateUser(arguments) => create_user::run(*arguments).await,
        Command::JoinToken(arguments) => join_token::run(*arguments).await,
        Command::RevokeNode(arguments) => revoke_node::run(*arguments).await,
        Command::RotateMasterKey(arguments) => rotate_master_key::run(*arguments).await,
    }
}

/// The server that an operator names by id or name.
async fn server(app: &App, named: &str) -> Result<Option<ServerId>, CliError> {
    let found = match named.parse() {
        Ok(id) => node::by_id(&app.store, id).await?,
        Err(_) => node::by_name(&app.store, named).await?,
    };
    Ok(found.map(|node| node.id))
}
