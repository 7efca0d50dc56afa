//! Links, addresses, routes, kernel settings and rules.

use super::LOOKS;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, Server, run},
    damage::{REPAIR, inside, logged, on},
    probe, wait,
};
use serde_json::json;

const PORT: u16 = 8000;
const CLOSED: u16 = 8001;

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_to_the_network_is_repaired() -> Result<()> {
    let cluster = Cluster::start(Plan { agent_settings: LOOKS.into(), ..Plan::default() }).await?;
    let (server, api) = (&cluster.servers[0], &cluster.tenant);
    let project = api.project("repair").await?;
    let id = api.container(&project, "busybox", json!({ "name": "web" })).await?;
    api.operate(&id, "start").await?;
    let rule = json!({ "action": "drop", "protocol": "tcp", "port": CLOSED, "description": "" });
    api.post(&format!("/api/v1/containers/{id}/firewall/ingress"), rule).await?.data()?;
    let web = probe::web(server, &id, PORT, "hello")?;
    let closed = probe::web(server, &id, CLOSED, "hello")?;
    probe::answers(&web, true).await?;
    let address = probe::address(server, &id)?;
    let link = format!("hy{}", &id[12..]);
    let whole = standing(server, &id)?;

    for (program, arguments) in [
        ("ip", format!("link del {link}")),
        ("ip", format!("link set {link} down")),
        ("ip", format!("route del {address}/32")),
        ("ip", format!("neigh del {address} dev {link}")),
        ("nft", "flush ruleset".to_owned()),
        ("nft", "delete table inet hoody".to_owned()),
        ("nft", format!("flush chain inet hoody in_{id}")),
        ("nft", format!("delete rule inet hoody in_{id} handle {}", drop_rule(server, &id)?)),
        ("nft", format!("insert rule inet hoody in_{id} accept")),
    ] {
        // The rules were made anew by the damage before, and their handles with them.
        let arguments = match arguments.split_once(" handle ") {
            Some((rule, _)) => format!("{rule} handle {}", drop_rule(server, &id)?),
            None => arguments,
        };
        let before = repairs(&cluster, &id).await?;
        on(server, program, &arguments)?;
        repaired(&cluster, &id, &whole, before).await.with_context(|| format!("{program} {arguments}"))?;
        probe::answers(&web, true).await?;
        probe::answers_now(&closed, false)?;
    }
    for arguments in [
        format!("addr del {address}/32 dev eth0"),
        "route del default".to_owned(),
        "link set eth0 down".to_owned(),
        "neigh del 169.254.1.1 dev eth0".to_owned(),
    ] {
        let before = repairs(&cluster, &id).await?;
        inside(server, &id, "ip", &arguments)?;
        repaired(&cluster, &id, &whole, before).await.with_context(|| arguments)?;
        probe::answers(&web, true).await?;
    }
    logged(api, &id, "running", "repaired").await?;

    // What belongs to no container.
    for (program, arguments) in [
        ("nft", "flush chain inet hoody forward"),
        ("nft", "delete chain inet hoody postrouting"),
        ("sysctl", "-qw net.ipv4.ip_forward=0"),
    ] {
        on(server, program, arguments)?;
        wait::until("the base stands again", REPAIR, async || {
            let forwards = on(server, "sysctl", "-n net.ipv4.ip_forward")?.trim() == "1";
            Ok((forwards && standing(server, &id)? == whole).then_some(()))
        })
        .await
        .with_context(|| format!("{program} {arguments}"))?;
        probe::answers(&web, true).await?;
        probe::answers_now(&closed, false)?;
    }
    ensure!(std::fs::read_to_string(server.log())?.contains("the base of the firewall was changed by others"));
    Ok(())
}

/// Waits until everything stands as before and one more repair is in the status log.
async fn repaired(cluster: &Cluster, id: &str, whole: &[String], before: usize) -> Result<()> {
    let mut now = Vec::new();
    let found = wait::until("the repair", REPAIR, async || {
        // In this order: a repair that is logged, and then a look that has found nothing. Repairs in a row are one
        // entry, so the next damage comes after that.
        let noticed = repairs(cluster, id).await? > before;
        let row = cluster.tenant.get(&format!("/api/v1/containers/{id}")).await?.data()?;
        now = standing(&cluster.servers[0], id)?;
        let over = noticed && !row["warnings"].to_string().contains("repaired");
        Ok((over && now == whole).then_some(()))
    });
    found.await.with_context(|| {
        let missing: Vec<_> = whole.iter().filter(|line| !now.contains(line)).collect();
        let new: Vec<_> = now.iter().filter(|line| !whole.contains(line)).collect();
        format!("missing {missing:#?}, new {new:#?}\n{}", cluster.log_tails())
    })
}

/// Repairs in the container's status log.
async fn repairs(cluster: &Cluster, id: &str) -> Result<usize> {
    let path = format!("/api/v1/containers/{id}/status-logs?limit=100");
    let data = cluster.tenant.get(&path).await?.data()?;
    let logs = data["logs"].as_array().context("no logs")?;
    Ok(logs.iter().filter(|log| log["metadata"]["cause"]["code"] == "repaired").count())
}

/// Rules, links, routes and neighbours of the server and of the container, as far as they never change.
fn standing(server: &Server, id: &str) -> Result<Vec<String>> {
    let rules = on(server, "nft", "--stateless list ruleset").unwrap_or_default();
    let kept = |line: &&str| ["comment", "chain", "hook", "goto", "elements"].iter().any(|word| line.contains(word));
    let mut lines: Vec<String> = rules.lines().filter(kept).map(|line| line.trim().to_owned()).collect();
    for arguments in ["route", "neigh show nud permanent"] {
        lines.extend(on(server, "ip", arguments)?.lines().map(|line| line.trim().to_owned()));
        lines.extend(inside(server, id, "ip", arguments)?.lines().map(|line| line.trim().to_owned()));
    }
    let addresses = inside(server, id, "ip", "-4 -br addr")?;
    // Interface numbers are new each time.
    lines.extend(addresses.lines().map(|line| line.replace("eth0@if", "eth0 ").replace(char::is_numeric, "#")));
    lines.sort();
    // The kernel counts connections in one of the sets.
    lines.retain(|line| !line.contains("ct count"));
    Ok(lines)
}

/// The handle of the rule that the owner made.
fn drop_rule(server: &Server, id: &str) -> Result<String> {
    let listing = run(server.command("nft").args(["-a", "list", "chain", "inet", "hoody", &format!("in_{id}")]))?;
    let line = listing.lines().find(|line| line.contains("comment \"rule ")).context("the rule does not stand")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
}
