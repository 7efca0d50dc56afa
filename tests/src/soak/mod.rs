//! The soak: many clients do random operations while agents and the control plane are killed, links are
//! cut and lose packets, and strangers damage what the agents made. At the end every container is what its
//! client asked for last, every operation has its one outcome, and nothing is left behind.
//!
//! Every decision comes from a seed. With the same seed each client and the disturber decide the same again;
//! how they interleave is the machine's.

mod client;
mod disturb;
mod verify;

use crate::{
    cluster::{Cluster, Plan},
    traces, wait,
};
use anyhow::{Context, Result};
use client::Client;
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Servers of the cluster.
const SERVERS: usize = 3;
/// Clients at once.
const CLIENTS: u64 = 6;
/// The time everything has to settle when the disturbances are over: the longest pause after failures is 60 s.
const SETTLE: Duration = Duration::from_secs(150);

/// What a soak came to.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// Requests answered.
    pub requests: u64,
    /// Requests cut off, and asked again.
    pub cut_off: u64,
    /// Containers made.
    pub containers: usize,
    /// Disturbances, by what they were.
    pub disturbances: std::collections::BTreeMap<&'static str, u64>,
}

/// Disturbs a cluster of its own for `length`; an error names the seed.
pub async fn run(length: Duration, seed: u64) -> Result<Summary> {
    println!("soak: {} s with SOAK_SEED={seed}", length.as_secs());
    let plan = Plan {
        servers: SERVERS, // Others can change the firewall's table: it is deleted now and then.
        agent_settings: "drift_interval_s = 2\nown_nft_table = false".into(),
        ..Plan::default()
    };
    let mut cluster = Cluster::start(plan).await?;
    let done = disturbed(&mut cluster, length, seed).await;
    done.with_context(|| format!("SOAK_SEED={seed}\n{}", cluster.log_tails()))
}

async fn disturbed(cluster: &mut Cluster, length: Duration, seed: u64) -> Result<Summary> {
    let before = cluster.servers.iter().map(traces::snapshot).collect::<Result<Vec<_>>>()?;
    let (stop, stopped) = watch::channel(false);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::new(cluster.tenant.clone(), number, seed).await?;
        clients.spawn(client.run(stopped.clone()));
    }
    let mut failed = None;
    let disturbances = tokio::select! {
        done = disturb::run(cluster, seed, Instant::now() + length) => done?,
        Some(ended) = clients.join_next() => {
            failed = Some(ended);
            Default::default()
        }
    };
    if let Some(ended) = failed {
        ended??;
        anyhow::bail!("a client ended before it was told to");
    }
    disturb::mend(cluster).await?;
    stop.send_replace(true);
    let mut ended = Vec::new();
    while let Some(client) = clients.join_next().await {
        ended.push(client??);
    }
    let summary = Summary {
        requests: ended.iter().map(|client| client.requests).sum(),
        cut_off: ended.iter().map(|client| client.cut_off).sum(),
        containers: ended.iter().map(|client| client.made.len()).sum(),
        disturbances,
    };
    verify::containers(cluster, &ended).await?;
    verify::operations(cluster, &ended).await?;
    for client in &ended {
        client.clear().await?;
    }
    for (server, before) in cluster.servers.iter().zip(&before) {
        for container in ended.iter().flat_map(|client| &client.made) {
            let found = wait::until("no trace is left", SETTLE, async || {
                Ok(traces::of_container(server, container)?.is_empty().then_some(()))
            });
            found.await.with_context(|| format!("{container}: {:#?}", traces::of_container(server, container)))?;
        }
        let same = wait::until("the server is as before", Duration::from_secs(20), async || {
            Ok((traces::snapshot(server)? == *before).then_some(()))
        });
        same.await.with_context(|| format!("before {before:#?}\nafter {:#?}", traces::snapshot(server)))?;
    }
    Ok(summary)
}
