//! Looks at the store for what other processes wrote: revocations and decisions by an operator's command,
//! another authority, and, where several replicas share the database, work for a link that is here. Renews
//! this replica's lease.

use super::{
    Nodes,
    authority::{self, Authorities},
    listener::Context,
};
use crate::{
    error::chain,
    store::{Backend, Store, StoreError, dispatch, moves, node, replica, sync, unknown},
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    sync::watch::Sender,
    time::{Instant, MissedTickBehavior},
};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks until it is aborted.
pub(super) async fn run(context: Context, authorities: Sender<Arc<Authorities>>) {
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let mut renewed = Instant::now();
    loop {
        ticks.tick().await;
        let looked = async {
            if renewed.elapsed() >= replica::RENEWAL {
                replica::renew(&context.app.store, &context.replica, context.app.nodes.replicas.announced()).await?;
                renewed = Instant::now();
            }
            look(&context.app.store, &context.app.nodes).await?;
            follow(&context, &authorities).await?;
            Ok::<_, LookError>(())
        };
        match looked.await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(error = chain(&error), "look for what other processes wrote");
            }
            // Said once; a database that is away fails every second.
            Err(_) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("database")]
    Store(#[from] StoreError),
    #[error("authorities")]
    Authority(#[from] authority::OpenError),
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
    for server in unknown::servers_with_decisions(store).await? {
        nodes.wake_for_decisions(server);
    }
    if store.backend() == Backend::Postgres {
        for server in dispatch::servers_with_work(store).await? {
            nodes.wake(server);
        }
        for server in sync::servers_waiting(store).await? {
            nodes.wake_for_syncs(server);
        }
        for row in moves::before_switch(store).await? {
            row.target.into_iter().for_each(|target| nodes.wake_for_moves(target));
        }
    }
    Ok(())
}

/// Takes over authorities that were added or retired; retires the present one when every node has moved.
async fn follow(context: &Context, authorities: &Sender<Arc<Authorities>>) -> Result<(), LookError> {
    let (store, keys) = (&context.app.store, &context.app.keys);
    if let Some(changed) = authority::changed(store, keys, &context.present()).await? {
        authorities.send_replace(Arc::new(changed));
        return Ok(());
    }
    let present = context.present();
    if present.next.is_some()
        && node::not_moved(store, &present.issuing().name()).await?.is_empty()
        && authority::retire(store, keys).await?
    {
        tracing::info!("every node has moved to the next authority: the one before is retired");
    }
    Ok(())
}
