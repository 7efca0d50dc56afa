//! What a move is for whoever looks from outside: a pause, and another address.

use crate::World;
use anyhow::{Result, ensure};
use hoody_tests::{cluster::Plan, deaths, probe, wait};
use serde_json::json;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_moves_with_all_its_lines_and_is_itself() -> Result<()> {
    let world = World::with(Plan::default()).await?;
    let id = world.writer.clone();
    let rule = json!({ "action": "drop", "protocol": "tcp", "port": 8000, "description": "closed" });
    world.api.post(&format!("/api/v1/containers/{id}/firewall/ingress"), rule).await?.data()?;
    wait::until("some lines", crate::DEADLINE, async || Ok((world.lines(0, &id)? > 100).then_some(()))).await?;
    let before = world.get(&id, "").await?;
    let first = probe::address(&world.cluster.servers[0], &id)?;

    world.begin(&id, 1).await?.data()?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "done" && ended["bytes"].as_u64() > Some(0), "{ended}");
    println!("pause of {} ms, {} bytes sent", ended["pause_ms"], ended["bytes"]);
    world.writes(&id, 1).await?;
    ensure!(world.lines(1, &id)? > 100);
    let after = world.get(&id, "").await?;
    for same in ["id", "name", "project_id", "autostart", "created_at"] {
        ensure!(before[same] == after[same], "{same}: {} became {}", before[same], after[same]);
    }
    ensure!(after["server_id"] == world.cluster.servers[1].id.as_str(), "{after}");
    let second = probe::address(&world.cluster.servers[1], &id)?;
    ensure!(first != second, "{first}");
    let machine = fs::read_to_string(world.root(1, &id).join("etc/machine-id"))?;
    ensure!(machine.starts_with("0123456789abcdef"), "it is another machine: {machine}");
    ensure!(world.get(&id, "/firewall/rules").await?.to_string().contains("8000"));
    let web = probe::web(&world.cluster.servers[1], &id, 8080, "here")?;
    probe::answers(&web, true).await?;
    let closed = probe::web(&world.cluster.servers[1], &id, 8000, "closed")?;
    probe::answers_now(&closed, false)?;
    let logs = world.get(&id, "/status-logs?limit=100").await?.to_string();
    ensure!(logs.contains("\"move\":\"succeeded\"") && logs.contains("pause_ms"), "{logs}");

    // Back to where it came from, which has deleted what it held; stopped, it stays so.
    world.api.operate(&id, "stop").await?;
    let lines = world.lines(1, &id)?;
    world.begin(&id, 0).await?.data()?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "done" && ended["pause_ms"].is_null(), "{ended}");
    ensure!(world.get(&id, "").await?["status"] == "stopped" && world.lines(0, &id)? == lines);
    world.api.operate(&id, "start").await?;
    world.writes(&id, 0).await?;
    world.api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    for server in 0..2 {
        wait::until("nothing of it", crate::DEADLINE, async || Ok(world.left(server, &id)?.is_empty().then_some(())))
            .await?;
    }
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_dies_in_the_middle_and_stays_away_costs_a_pause() -> Result<()> {
    let mut world = World::with(Plan::default()).await?;
    let id = world.writer.clone();
    // It does not end when it is asked to: there is time to die in.
    let stubborn = crate::WRITER.replace("trap 'exit 0' TERM", "trap '' TERM");
    fs::write(world.root(0, &id).join("bin/init"), stubborn)?;
    world.api.operate(&id, "restart").await?;
    world.begin(&id, 1).await?.data()?;
    wait::until("the container is held", crate::DEADLINE, async || {
        Ok((world.get(&id, "/move").await?["state"] == "stopping").then_some(()))
    })
    .await?;
    world.cluster.servers[1].kill_agent()?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "failed" && ended["cause"]["code"] == "target_offline", "{ended}");
    ensure!(world.get(&id, "").await?["server_id"] == world.cluster.servers[0].id.as_str());
    world.api.wait_status(&id, "running").await?;
    world.cluster.servers[1].start()?;
    deaths::linked(&world.cluster, 1).await?;
    world.writes(&id, 0).await
}
