//! `dev bench`: what the platform takes, beside what a peer or the machine takes in the same run.
//! BENCH=lifecycle,snapshot,exec,crun,pull,transfer,read,firewall,traffic,neighbour chooses parts.

mod bare;
mod crowd;
mod crun;
mod docker;
mod exec;
mod firewall;
mod lifecycle;
mod lxd;
mod neighbour;
mod pull;
mod read;
mod snapshot;
mod steps;
mod table;
mod traffic;
mod transfer;

use crate::measure::{memory, profile};
use anyhow::{Context, Result};
use hoody_tests::cluster::Cluster;

pub(super) async fn run() -> Result<()> {
    let chosen = std::env::var("BENCH").unwrap_or_default();
    let wanted = |part: &str| chosen.is_empty() || chosen.split(',').any(|name| name == part);
    let cluster = Cluster::start(steps::plan()).await?;
    // Checking every answer against the contract is for tests.
    let api = cluster.tenant.unchecked();
    println!("{} build", profile());
    resident(&cluster, "0 containers")?;
    if wanted("lifecycle") {
        lifecycle::run(&cluster, &api).await?;
    }
    if wanted("snapshot") {
        snapshot::run(&cluster, &api).await?;
    }
    if wanted("exec") {
        exec::run(&cluster, &api).await?;
    }
    if wanted("crun") {
        crun::run().await?;
    }
    if wanted("pull") {
        pull::run_part().await?;
    }
    if wanted("transfer") {
        transfer::run_part().await?;
    }
    if wanted("read") {
        read::run(&cluster, &api).await?;
    }
    if wanted("traffic") {
        traffic::run(&cluster, &api).await?;
    }
    if wanted("neighbour") {
        neighbour::run(&cluster, &api).await?;
    }
    if wanted("firewall") {
        firewall::run(&cluster, &api).await?;
    }
    Ok(())
}

/// Memory of both programs.
fn resident(cluster: &Cluster, when: &str) -> Result<()> {
    for (what, pid) in [("agent", cluster.servers[0].agent_pid()), ("control plane", cluster.control_plane.pid())] {
        let (now, _) = memory(pid.context("it runs")?)?;
        table::value(&format!("memory of the {what}, {when}"), &format!("{now:.0} MiB"));
    }
    Ok(())
}
