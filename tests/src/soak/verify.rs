//! What must be true when everything has settled.

use super::{
    SETTLE,
    client::{Asked, Client},
};
use crate::{
    cluster::{Cluster, Server, run},
    traces, wait,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Every container is what its client asked for last, as the API says and as its server's kernel says.
pub(super) async fn containers(cluster: &Cluster, clients: &[Client]) -> Result<()> {
    for client in clients {
        for asked in &client.containers {
            let mut difference = String::new();
            let settled = wait::until("the container is as asked", SETTLE, async || {
                difference = differs(cluster, client, asked).await?;
                Ok(difference.is_empty().then_some(()))
            });
            settled.await.with_context(|| format!("{asked:?}: {difference}"))?;
        }
    }
    Ok(())
}

async fn differs(cluster: &Cluster, client: &Client, asked: &Asked) -> Result<String> {
    let path = format!("/api/v1/containers/{}", asked.id);
    let row = client.api.get(&path).await?.data()?;
    if row["status"] != asked.status {
        return Ok(format!("the API says {row}"));
    }
    let environment: std::collections::BTreeMap<String, String> =
        serde_json::from_value(row["environment_vars"].clone())?;
    ensure!(environment == asked.environment, "environment of {asked:?}: {row}");
    let rules = client.api.get(&format!("{path}/firewall/rules")).await?.data()?;
    let ports = rules["ingress"].as_array().context("no rules")?.iter();
    let ports: std::collections::BTreeSet<String> =
        ports.filter_map(|rule| rule["destination_port"].as_str().map(str::to_owned)).collect();
    ensure!(ports == asked.drops.iter().map(u16::to_string).collect(), "rules of {asked:?}: {rules}");
    let server = cluster.servers.iter().find(|server| row["server_id"] == server.id).context("no such server")?;
    on_the_server(server, asked)
}

/// What differs on the server; empty where nothing does.
fn on_the_server(server: &Server, asked: &Asked) -> Result<String> {
    let left: Vec<String> =
        traces::of_container(server, &asked.id)?.into_iter().filter(|trace| !trace.starts_with("file ")).collect();
    if asked.status == "stopped" {
        return Ok(if left.is_empty() { String::new() } else { format!("stopped, and there are {left:#?}") });
    }
    if traces::processes_of(&asked.id)?.is_empty() {
        return Ok("no process runs".to_owned());
    }
    let chain = run(server.command("nft").args(["list", "chain", "inet", "hoody", &format!("in_{}", asked.id)]))
        .unwrap_or_default();
    for port in &asked.drops {
        if !chain.lines().any(|line| line.contains(&format!("tcp dport {port} ")) && line.contains("drop")) {
            return Ok(format!("port {port} is not dropped: {chain}"));
        }
    }
    let drops = chain.lines().filter(|line| line.contains("comment \"rule ") && line.contains("drop")).count();
    Ok(if drops == asked.drops.len() { String::new() } else { format!("other rules stand: {chain}") })
}

/// Every operation has an outcome, and every success that a client was told is recorded as one.
pub(super) async fn operations(cluster: &Cluster, clients: &[Client]) -> Result<()> {
    wait::until("every operation has an outcome", SETTLE, async || {
        for state in ["pending", "dispatched"] {
            let found = cluster.admin.get(&format!("/api/v1/admin/operations?state={state}")).await?.data()?;
            if found["operations"].as_array().is_some_and(|open| !open.is_empty()) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    for asked in clients.iter().flat_map(|client| &client.containers) {
        let path = format!("/api/v1/admin/operations?container_id={}&state=succeeded", asked.id);
        let found = cluster.admin.get(&path).await?.data()?;
        let succeeded = found["pagination"]["total"].as_u64().unwrap_or(0);
        ensure!(succeeded >= asked.restarts as u64, "{asked:?}: {succeeded} restarts are recorded as done");
        let all = found["operations"].as_array().context("no operations")?;
        ensure!(all.iter().all(|one: &Value| !one["finished_at"].is_null()), "an end without time: {found}");
    }
    Ok(())
}
