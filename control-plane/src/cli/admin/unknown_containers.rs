//! `admin unknown-containers …`: what a node holds and the control plane does not know, to be adopted or
//! removed. A process that serves carries the decision out within a second or two.

use super::super::{CliError, open};
use crate::{app::App, config::Settings, service::server::unknown as service, store::unknown};
use clap::Subcommand;
use hoody_protocol::id::{ContainerId, ProjectId, ServerId};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// List what only the server's node knows
    List(Box<ListArguments>),
    /// Take a container into a project
    Adopt(Box<AdoptArguments>),
    /// Delete a container from its node
    Remove(Box<RemoveArguments>),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArguments {
    /// The server's id or name
    server: String,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AdoptArguments {
    /// The server's id or name
    server: String,
    /// The container's id
    container: ContainerId,
    /// The id of the project that it becomes a container of
    #[arg(long)]
    project: ProjectId,
    /// Its name; without one, its id
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RemoveArguments {
    /// The server's id or name
    server: String,
    /// The container's id
    container: ContainerId,
    #[command(flatten)]
    settings: Settings,
}

pub(in crate::cli) async fn run(command: Command) -> Result<(), CliError> {
    let settings = match &command {
        Command::List(arguments) => &arguments.settings,
        Command::Adopt(arguments) => &arguments.settings,
        Command::Remove(arguments) => &arguments.settings,
    };
    let app = open(settings.clone().resolve()?).await?;
    let outcome = execute(&app, command).await;
    app.store.close().await;
    outcome
}

async fn execute(app: &App, command: Command) -> Result<(), CliError> {
    match command {
        Command::List(arguments) => {
            for row in unknown::list(&app.store, server(app, &arguments.server).await?).await? {
                let problem = row.problem.map(|problem| format!("  {problem}")).unwrap_or_default();
                let decision = row.decision.map(|decision| format!("  {decision:?}")).unwrap_or_default();
                println!("{}  {:9} version {}{decision}{problem}", row.container, row.state, row.version);
            }
        }
        Command::Adopt(arguments) => {
            let server = server(app, &arguments.server).await?;
            service::adopt(app, server, arguments.container, arguments.project, arguments.name).await?;
        }
        Command::Remove(arguments) => {
            service::remove(app, server(app, &arguments.server).await?, arguments.container).await?;
        }
    }
    Ok(())
}

async fn server(app: &App, named: &str) -> Result<ServerId, CliError> {
    let found = super::server(app, named).await?;
    found.ok_or_else(|| CliError::Other(format!("there is no server {named:?}")))
}
