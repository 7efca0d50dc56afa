//! What befalls a cluster: one disturbance at a time, with pauses in which things go on.

use crate::{
    cluster::{Cluster, Server, run as run_program},
    traces,
};
use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// Longer than the idle timeout of links: both sides notice.
const LONG_MS: u64 = 24_000;

/// Disturbs until `end`; gives how often what was done.
pub(super) async fn run(cluster: &mut Cluster, seed: u64, end: Instant) -> Result<BTreeMap<&'static str, u64>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = BTreeMap::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(random.random_range(300..4000))).await;
        let which = random.random_range(0..cluster.servers.len());
        let long = random.random_ratio(1, 10);
        let length = Duration::from_millis(if long { LONG_MS } else { random.random_range(0..4000) });
        let server = &mut cluster.servers[which];
        let what = match random.random_range(0..14) {
            0..4 => {
                server.kill_agent()?;
                sleep(length).await;
                server.start()?;
                "agent killed"
            }
            4..7 => {
                cluster.control_plane.kill()?;
                sleep(length.min(Duration::from_secs(3))).await;
                cluster.control_plane.start().await?;
                "control plane killed"
            }
            7..9 => {
                server.set_uplink(false)?;
                sleep(length).await;
                server.set_uplink(true)?;
                "link cut"
            }
            9..11 => {
                server.set_loss(random.random_range(5..50))?;
                sleep(length * 2).await;
                server.set_loss(0)?;
                "packets lost"
            }
            11 => {
                delete_a_link(server)?;
                "interface deleted"
            }
            12 => {
                // Absent where no agent has run yet.
                let _ = run_program(server.command("nft").args(["delete", "table", "inet", "hoody"]));
                "firewall deleted"
            }
            _ => {
                server.kill_agent()?;
                cluster.control_plane.kill()?;
                sleep(length.min(Duration::from_secs(3))).await;
                cluster.servers[which].start()?;
                cluster.control_plane.start().await?;
                "both killed"
            }
        };
        *done.entry(what).or_default() += 1;
    }
    Ok(done)
}

/// Ends every disturbance and waits until all servers are online.
pub(super) async fn mend(cluster: &mut Cluster) -> Result<()> {
    for server in &mut cluster.servers {
        server.agent()?.check().context("an agent has ended by itself")?;
    }
    cluster.control_plane.process()?.check().context("the control plane has ended by itself")?;
    for server in &cluster.servers {
        cluster.wait_online(server, true).await?;
    }
    Ok(())
}

/// Deletes a container's interface, where there is one.
fn delete_a_link(server: &Server) -> Result<()> {
    if let Some(name) = traces::container_links(server)?.first() {
        // Its container may just be stopping.
        let _ = run_program(server.command("ip").args(["link", "del", name]));
    }
    Ok(())
}
