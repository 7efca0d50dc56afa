//! `admin …`: what an operator does on the control plane's own machine.

mod create_user;

use super::CliError;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an account
    CreateUser(Box<create_user::Arguments>),
}

pub(super) async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::CreateUser(arguments) => create_user::run(*arguments).await,
    }
}
