//! `admin …`: what an operator does on the control plane's own machine.

mod create_user;
mod join_token;
mod revoke_node;

use super::CliError;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an account
    CreateUser(Box<create_user::Arguments>),
    /// Make a join token, with which a server's agent enrols once
    JoinToken(Box<join_token::Arguments>),
    /// Shut a server's agent out for good
    RevokeNode(Box<revoke_node::Arguments>),
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::CreateUser(arguments) => create_user::run(*arguments).await,
        Command::JoinToken(arguments) => join_token::run(*arguments).await,
        Command::RevokeNode(arguments) => revoke_node::run(*arguments).await,
    }
}
