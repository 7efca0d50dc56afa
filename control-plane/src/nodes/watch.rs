//! Looks at the store for what other processes wrote: revocations by an operator's command, and, where
//! several replicas share the database, work for a link that is here.

use super::Nodes;
use crate::{
    app::App,
    store::{Backend, Store, StoreError, dispatch, node},
};
use std::{collections::HashSet, time::Duration};
use tokio::time::MissedTickBehavior;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks until it is aborted.
pub(super) async fn run(app: App) {
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        match look(&app.store, &app.nodes).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(error = &error as &dyn std::error::Error, "look for revoked servers");
            }
            // Said once; a database that is away fails every second.
            Err(_) => {}
        }
    }
}

async fn look(store: &Store, nodes: &Nodes) -> Result<(), StoreError> {
    let connected: HashSet<_> = nodes.registry.connected().into_iter().collect();
    if connected.is_empty() {
        return Ok(());
    }
    for server in node::shut_out(store).await? {
        if connected.contains(&server) && nodes.close(server) {
            tracing::info!(%server, "the server was revoked or disabled: its connections are closed");
        }
    }
    if store.backend() == Backend::Postgres {
        for server in dispatch::servers_with_work(store).await? {
            nodes.wake(server);
        }
    }
    Ok(())
}
