//! `admin authority …`: replaces the authority that nodes and control plane know each other by, without
//! cutting anybody off.

use super::super::{CliError, open};
use crate::{
    app::App,
    config::Settings,
    nodes::authority::{self, Authorities, OpenError},
    store::node,
};
use clap::Subcommand;

/// Servers that are listed by name.
const LISTED: usize = 20;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Say which authorities there are, and which servers have not moved to the next
    Status(Box<Arguments>),
    /// Add the next authority: linked servers move to it by themselves, and when all have, the present is retired
    Rotate(Box<Arguments>),
    /// Retire the present authority now
    Retire(Box<RetireArguments>),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RetireArguments {
    /// Also where servers have not moved: they must join again
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    settings: Settings,
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        Self::Authority(Box::new(error))
    }
}

pub(in crate::cli) async fn run(command: Command) -> Result<(), CliError> {
    let settings = match &command {
        Command::Status(arguments) | Command::Rotate(arguments) => &arguments.settings,
        Command::Retire(arguments) => &arguments.settings,
    };
    let app = open(settings.clone().resolve()?).await?;
    let outcome = match command {
        Command::Status(_) => status(&app).await,
        Command::Rotate(_) => rotate(&app).await,
        Command::Retire(arguments) => retire(&app, arguments.force).await,
    };
    app.store.close().await;
    outcome
}

async fn status(app: &App) -> Result<(), CliError> {
    let authorities = authority::open(&app.store, &app.keys).await?;
    show(app, &authorities).await
}

async fn rotate(app: &App) -> Result<(), CliError> {
    let authorities = authority::rotate(&app.store, &app.keys).await?;
    show(app, &authorities).await
}

async fn show(app: &App, authorities: &Authorities) -> Result<(), CliError> {
    println!("present: {} ({})", authorities.present.digest(), authorities.present.name());
    let Some(next) = &authorities.next else {
        println!("next: none");
        return Ok(());
    };
    println!("next: {} ({})", next.digest(), next.name());
    let waiting = node::not_moved(&app.store, &next.name()).await?;
    println!("servers that have not moved: {}", waiting.len());
    for name in waiting.iter().take(LISTED) {
        println!("  {name}");
    }
    Ok(())
}

async fn retire(app: &App, force: bool) -> Result<(), CliError> {
    let authorities = authority::open(&app.store, &app.keys).await?;
    let Some(next) = &authorities.next else {
        return Err(CliError::Other("there is no next authority: add one with `admin authority rotate`".to_owned()));
    };
    let waiting = node::not_moved(&app.store, &next.name()).await?;
    if !waiting.is_empty() && !force {
        return Err(CliError::Other(format!(
            "{} servers have not moved and would have to join again ({}): wait, or add --force",
            waiting.len(),
            waiting.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ")
        )));
    }
    // False where a process that serves was quicker, which is as good.
    authority::retire(&app.store, &app.keys).await?;
    println!("retired: {}", authorities.present.digest());
    Ok(())
}
