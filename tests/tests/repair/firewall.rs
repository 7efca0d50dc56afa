//! A stranger flushes the ruleset again and again while packets arrive that a rule drops.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, Server},
    damage::{inside, on},
    flood::Flood,
    probe, wait,
};
use serde_json::json;
use std::{net::Ipv4Addr, time::Duration};

/// Nothing is looked at while this test runs: what is repaired was told by the kernel.
const NEVER: &str = "drift_interval_s = 3600";
/// For a repair, the machine being busy.
const REPAIR: Duration = Duration::from_secs(20);
const FLUSHES: usize = 30;
const PORT: u16 = 8000;
const CLOSED: u16 = 8001;

/// A running container that drops datagrams to [`CLOSED`].
async fn closed(settings: String) -> Result<(Cluster, String, Ipv4Addr)> {
    let cluster = Cluster::start(Plan { agent_settings: settings, ..Plan::default() }).await?;
    let api = &cluster.tenant;
    let project = api.project("flush").await?;
    let id = api.container(&project, "busybox", json!({ "name": "closed" })).await?;
    api.operate(&id, "start").await?;
    let rule = json!({ "action": "drop", "protocol": "udp", "port": CLOSED, "description": "" });
    api.post(&format!("/api/v1/containers/{id}/firewall/ingress"), rule).await?.data()?;
    let address = probe::address(&cluster.servers[0], &id)?;
    Ok((cluster, id, address))
}

/// Datagrams to ports without a listener that the container has received.
fn received(server: &Server, id: &str) -> Result<u64> {
    let counters = inside(server, id, "cat", "/proc/net/snmp")?;
    let mut lines = counters.lines().filter(|line| line.starts_with("Udp:"));
    let names = lines.next().context("no counters of UDP")?.split_whitespace();
    let values = lines.next().context("no counters of UDP")?.split_whitespace();
    let counter = names.zip(values).find(|(name, _)| *name == "NoPorts").context("no counter")?;
    Ok(counter.1.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_flushes_the_table_of_the_agent() -> Result<()> {
    let (cluster, id, address) = closed(NEVER.into()).await?;
    let server = &cluster.servers[0];
    let web = probe::web(server, &id, PORT, "hello")?;
    probe::answers(&web, true).await?;
    let before = received(server, &id)?;
    let flood = Flood::start(server, address, CLOSED)?;
    for _ in 0..FLUSHES {
        on(server, "nft", "flush ruleset")?;
        probe::answers_now(&web, true)?;
    }
    let sent = flood.finish()?;
    ensure!(sent.datagrams > 300, "only {sent:?}");
    ensure!(received(server, &id)? == before, "datagrams passed a rule that drops them");
    ensure!(on(server, "nft", "delete table inet hoody").is_err(), "the table can be deleted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_table_that_everybody_can_change_is_repaired_at_once() -> Result<()> {
    let (cluster, id, address) = closed(format!("{NEVER}\nown_nft_table = false")).await?;
    let server = &cluster.servers[0];
    let flood = Flood::start(server, address, CLOSED)?;
    let mut passed = Vec::new();
    for _ in 0..FLUSHES {
        let before = received(server, &id)?;
        on(server, "nft", "flush ruleset")?;
        wait::until("the container's rules stand again", REPAIR, async || {
            let chain = on(server, "nft", &format!("list chain inet hoody in_{id}"));
            Ok(chain.is_ok_and(|chain| chain.contains(&format!("udp dport {CLOSED}"))).then_some(()))
        })
        .await
        .with_context(|| cluster.log_tails())?;
        passed.push(received(server, &id)? - before);
    }
    let before = received(server, &id)?;
    let sent = flood.finish()?;
    ensure!(received(server, &id)? == before, "datagrams pass a rule that drops them");
    ensure!(passed.iter().any(|passed| *passed > 0), "the flood never met a missing table: it shows nothing");
    passed.sort_unstable();
    let time = |passed: u64| sent.pause() * u32::try_from(passed).unwrap_or(u32::MAX);
    println!(
        "{FLUSHES} flushes: rules were gone for {:?} (median), {:?} (longest); a datagram every {:?}",
        time(passed[FLUSHES / 2]),
        time(passed[FLUSHES - 1]),
        sent.pause()
    );
    Ok(())
}
