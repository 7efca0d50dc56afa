//! `hoody-agent join`: enrols this server.

use super::Failure;
use crate::{
    agent,
    config::Config,
    link::{identity::IdentityStore, join},
};
use clap::Args;
use hoody_protocol::join_token::JoinToken;
use std::{io::Read, process::ExitCode};

/// Bytes read from standard input; a token is some hundred.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Its `Debug` does not show the token.
#[derive(Args)]
pub(super) struct Join {
    /// The join token; `-` reads it from standard input, so that it is not seen among the processes.
    token: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").finish_non_exhaustive()
    }
}

pub(super) async fn execute(config: &Config, command: Join) -> Result<ExitCode, Failure> {
    let text = if command.token == "-" {
        let mut text = String::new();
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
        text
    } else {
        command.token
    };
    let token: JoinToken = text.parse()?;
    agent::make_folders(config)?;
    let server = join::join(&IdentityStore::new(config.identity_dir()), &token).await?;
    println!("joined as server {server}; start the agent with `systemctl enable --now hoody-agent`");
    Ok(ExitCode::SUCCESS)
}
