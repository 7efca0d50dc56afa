//! A link that loses packets, and one that is cut: reads go on with the last known state, operations are
//! refused and never run, writes are applied once, and what occurred meanwhile arrives in order.

use crate::{DEADLINE, first_process, small};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    traces, wait,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Share of packets that are lost, in percent.
const LOSS: u8 = 20;
/// How long the link stays cut and lossy beyond what is needed to notice it; `make soak` sets more.
const LONGER: &str = "HOODY_TEST_PARTITION_SECONDS";

fn longer() -> Duration {
    Duration::from_secs(std::env::var(LONGER).ok().and_then(|text| text.parse().ok()).unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_link_works_and_a_cut_one_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let outcome = async {
        let api = cluster.tenant.clone();
        let project = api.project("partition").await?;
        let steady = api.container(&project, "busybox", small("steady")).await?;
        let moves = api.container(&project, "busybox", small("moves")).await?;
        for id in [&steady, &moves] {
            api.operate(id, "start").await?;
            api.wait_status(id, "running").await?;
        }
        lossy(&cluster, &moves).await.context("lossy")?;
        cut(&mut cluster, &steady, &moves).await.context("cut")?;
        api.delete(&format!("/api/v1/projects/{project}"), None).await?.data()?;
        Ok::<_, anyhow::Error>(())
    };
    let outcome = outcome.await;
    outcome.with_context(|| cluster.log_tails())
}

/// With every fifth packet lost everything works, if slower, and the link stays up.
async fn lossy(cluster: &Cluster, container: &str) -> Result<()> {
    let (api, server) = (&cluster.tenant, &cluster.servers[0]);
    let up = server.status()?["link"]["since"].clone();
    server.lose(LOSS, cluster.control_plane.node_port())?;
    let end = Instant::now() + longer();
    let mut round = 0;
    loop {
        round += 1;
        api.operate(container, "restart").await?;
        let variable = format!("/api/v1/containers/{container}/env/ROUND");
        let answer = api.put(&variable, json!({ "value": round.to_string() })).await?.data()?;
        ensure!(answer["synced"] == true, "{answer}");
        if round >= 3 && Instant::now() >= end {
            break;
        }
    }
    server.lose(0, 0)?;
    let link = server.status()?["link"].clone();
    ensure!(link["state"] == "up" && link["since"] == up, "the link broke: {link}, up before since {up}");
    Ok(())
}

async fn cut(cluster: &mut Cluster, steady: &str, moves: &str) -> Result<()> {
    let api = cluster.tenant.clone();
    let path = |id: &str| format!("/api/v1/containers/{id}");
    let server = &cluster.servers[0];
    let before = first_process(server, steady)?;
    server.set_uplink(false)?;
    cluster.wait_online(server, false).await?;
    tokio::time::sleep(longer()).await;

    // What the server does meanwhile goes into its journal: the first process ends.
    let first = *traces::processes_of(moves)?.iter().min().context("no process")?;
    let first = init_of(first, moves)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)?;
    wait::until("the agent sees the end", DEADLINE, async || {
        let status = server.status()?;
        let rows = status["containers"].as_array().context("no containers")?;
        Ok(rows.iter().any(|row| row[0] == moves && row[1]["state"] == "stopped").then_some(()))
    })
    .await?;

    for id in [steady, moves] {
        let row = api.get(&path(id)).await?.data()?;
        ensure!(row["status"] == "running" && row["server_online"] == false, "not the last known state: {row}");
        ensure!(row["reported_age_ms"].is_u64(), "without its age: {row}");
    }
    let refused = api.post(&format!("{}/restart", path(steady)), json!({})).await?;
    refused.expect_refusal(503, "UNAVAILABLE")?;
    for value in ["1", "2", "3"] {
        let written = api.put(&format!("{}/env/MEANWHILE", path(steady)), json!({ "value": value })).await?.data()?;
        ensure!(written["synced"] == false, "{written}");
    }
    let version = applied(cluster, steady)?;

    server.set_uplink(true)?;
    cluster.wait_online(server, true).await?;
    let row = api.wait_status(moves, "stopped").await?;
    ensure!(row["server_online"] == true, "{row}");
    wait::until("the writes are applied", DEADLINE, async || {
        let status = server.status()?;
        let rows = status["containers"].as_array().context("no containers")?.clone();
        let row = rows.iter().find(|row| row[0] == steady).context("not there")?;
        Ok((row[1]["version"]["generation"].as_u64() > version["generation"].as_u64()).then_some(()))
    })
    .await?;
    // Once: of three writes the agent was sent the last; and the refused restart never ran.
    ensure!(first_process(server, steady)? == before, "the refused restart ran later, or a write restarted it");
    let taken = reports_of(&std::fs::read_to_string(server.log())?, steady);
    ensure!(taken.iter().collect::<std::collections::BTreeSet<_>>().len() == taken.len(), "applied twice: {taken:?}");
    in_order(cluster, moves).await?;
    // And the link is as good as before.
    api.operate(moves, "start").await?;
    api.wait_status(moves, "running").await?;
    api.operate(steady, "restart").await?;
    let seen = server.exec(steady, &["cat", "/proc/1/environ"])?;
    ensure!(seen.contains("MEANWHILE=3"), "{seen:?}");
    Ok(())
}

/// The container's init among its processes: its parent is outside.
fn init_of(any: i32, container: &str) -> Result<i32> {
    let inside = traces::processes_of(container)?;
    let parent = |pid: i32| -> Result<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let rest = stat.rsplit_once(')').context("no command")?.1;
        Ok(rest.split_whitespace().nth(1).context("no parent")?.parse()?)
    };
    let mut pid = any;
    loop {
        let above = parent(pid)?;
        let name = std::fs::read_to_string(format!("/proc/{above}/comm")).unwrap_or_default();
        if !inside.contains(&above) || name.trim() == "conmon" {
            return Ok(pid);
        }
        pid = above;
    }
}

fn applied(cluster: &Cluster, container: &str) -> Result<Value> {
    let status = cluster.servers[0].status()?;
    let rows = status["containers"].as_array().context("no containers")?;
    Ok(rows.iter().find(|row| row[0] == container).context("not there")?[1]["version"].clone())
}

/// The converged states of the container that the agent logged, each with its version.
fn reports_of(log: &str, container: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(container) && line.contains("converged=true"));
    lines.filter_map(|line| Some(line.split_once("state=")?.1.to_owned())).collect()
}

/// The log of the container's states has no gap: each begins where the one before ended, in the order of time.
async fn in_order(cluster: &Cluster, container: &str) -> Result<()> {
    let path = format!("/api/v1/containers/{container}/status-logs?limit=100&sort_order=asc");
    let logs = cluster.tenant.get(&path).await?.data()?;
    let logs = logs["logs"].as_array().context("no logs")?.clone();
    let times: Vec<&str> = logs.iter().filter_map(|log| log["transition_time"].as_str()).collect();
    ensure!(times.is_sorted(), "{times:?}");
    for pair in logs.windows(2) {
        ensure!(pair[0]["to_status"] == pair[1]["from_status"], "a gap: {logs:#?}");
    }
    let last = logs.last().context("empty")?;
    ensure!(last["to_status"] == "stopped" && last["triggered_by"] == "node", "{last}");
    Ok(())
}
