//! What goes on while a program is away, is upgraded, or the whole server is rebooted.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, Server, program},
    probe, traces,
    traffic::Traffic,
    wait,
};
use serde_json::json;
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

const PORT: u16 = 8000;
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_programs_are_killed_stopped_and_upgraded() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let api = cluster.tenant.clone();
    let project = api.project("survival").await?;
    let container = api.container(&project, "busybox", json!({ "name": "web" })).await?;
    api.operate(&container, "start").await?;
    api.wait_status(&container, "running").await?;
    let web = probe::web(&cluster.servers[0], &container, PORT, "hello")?;
    probe::answers(&web, true).await?;
    let processes = traces::processes_of(&container)?;
    let traffic = Traffic::start(&web);

    let beside = cluster.servers[0].agent_command().arg("run").output()?;
    let said = String::from_utf8_lossy(&beside.stderr).into_owned();
    ensure!(!beside.status.success() && said.contains("another agent runs"), "a second agent was let in: {said}");

    cluster.servers[0].kill_agent()?;
    cluster.servers[0].start()?;
    adopted(&cluster, &container).await.context("after the agent was killed")?;

    // An upgrade: another file is the program from now on.
    cluster.servers[0].stop_agent()?;
    let upgraded = cluster.folder().join("hoody-agent-upgraded");
    std::fs::copy(program("hoody-agent"), &upgraded)?;
    cluster.servers[0].program = Some(upgraded);
    cluster.servers[0].start()?;
    adopted(&cluster, &container).await.context("after the upgrade")?;

    cluster.control_plane.kill()?;
    // The agent is started again without it, and repairs what it finds.
    cluster.servers[0].kill_agent()?;
    cluster.servers[0].start()?;
    running(&cluster.servers[0], &container).await.context("without the control plane")?;
    cluster.control_plane.start().await?;
    adopted(&cluster, &container).await.context("after the control plane came back")?;

    let seen = traffic.finish()?;
    println!("{seen:?}");
    assert_eq!(traces::processes_of(&container)?, processes, "processes of the container were started again");
    let path = format!("/api/v1/containers/{container}/firewall/ingress");
    let rule = json!({ "action": "drop", "protocol": "tcp", "port": PORT, "description": "" });
    api.post(&path, rule).await?.data()?;
    probe::answers_now(&web, false).context("the upgraded agent's rules are not in force")
}

/// Waits until the agent that runs now holds the container as running and has told the control plane.
async fn adopted(cluster: &Cluster, container: &str) -> Result<()> {
    let server = &cluster.servers[0];
    running(server, container).await?;
    wait::until("the link", DEADLINE, async || {
        let status = server.status()?;
        Ok((status["link"]["state"] == "up" && status["unacknowledged"] == 0).then_some(()))
    })
    .await
}

async fn running(server: &Server, container: &str) -> Result<()> {
    state(server, container, "running").await
}

async fn state(server: &Server, container: &str, state: &str) -> Result<()> {
    wait::until(&format!("{container} is {state} on its server"), DEADLINE, async || {
        // It may just be starting.
        let Ok(status) = server.status() else { return Ok(None) };
        let rows = status["containers"].as_array().context("no containers")?;
        Ok(rows.iter().any(|row| row[0] == container && row[1]["state"] == state).then_some(()))
    })
    .await
}

/// Small enough for several on one machine.
fn small(name: &str) -> serde_json::Value {
    json!({ "name": name, "specs": { "cpu_cores": 0.3, "memory_mb": 64, "storage_mb": 64 } })
}

/// A container whose first process sends datagrams from its first instruction on.
fn flood(server: &Server, container: &str, to: Ipv4Addr, port: u16) -> Result<()> {
    let init = format!(
        "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do tftp -g -r x -l /dev/null {to} {port} & sleep 0.02; kill $!; wait; done\n"
    );
    // The command of an image without one is its init; `/sbin` leads to `/bin`.
    let path = server.pool().join("containers").join(container).join("bin/init");
    std::fs::write(&path, init)?;
    Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?)
}

/// Datagrams that have arrived; none are left.
fn arrived(socket: &UdpSocket) -> Result<usize> {
    let mut count = 0;
    let mut bytes = [0; 2048];
    loop {
        match socket.recv(&mut bytes) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_autostart_containers_come_back_by_themselves_behind_their_rules() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let outcome = reboot(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())
}

async fn reboot(cluster: &mut Cluster) -> Result<()> {
    let api = cluster.tenant.clone();
    let project = api.project("reboot").await?;
    let outside = cluster.servers[0].outside();
    let socket = UdpSocket::bind((outside, 0))?;
    socket.set_nonblocking(true)?;
    let port = socket.local_addr()?.port();

    let guarded = api.container(&project, "busybox", small("guarded")).await?;
    let resting = api.container(&project, "busybox", small("resting")).await?;
    let path = |id: &str| format!("/api/v1/containers/{id}");
    api.patch(&path(&guarded), json!({ "autostart": true })).await?.data()?;
    flood(&cluster.servers[0], &guarded, outside, port)?;
    for id in [&guarded, &resting] {
        api.operate(id, "start").await?;
        api.wait_status(id, "running").await?;
    }
    // What is to be held back gets through without a rule.
    wait::until("a datagram", DEADLINE, async || Ok((arrived(&socket)? > 0).then_some(()))).await?;
    let rule = json!({ "action": "drop", "protocol": "udp", "port": port, "description": "" });
    let rules = format!("{}/firewall/egress", path(&guarded));
    api.post(&rules, rule).await?.data()?;
    api.wait_status(&guarded, "running").await?;
    arrived(&socket)?;

    cluster.control_plane.stop()?;
    cluster.servers[0].reboot()?;
    assert_eq!(traces::processes_of(&guarded)?, Vec::<i32>::new(), "the server was not rebooted");
    arrived(&socket)?;
    let begun = Instant::now();
    cluster.servers[0].start()?;
    running(&cluster.servers[0], &guarded).await?;
    let back = begun.elapsed();
    state(&cluster.servers[0], &resting, "stopped").await?;
    // It sends, and all of it is dropped, from the first datagram on.
    let held_back = wait::until("datagrams that were dropped", DEADLINE, async || {
        let rules = cluster.servers[0].command("nft").args(["list", "counters"]).output()?;
        let text = String::from_utf8(rules.stdout)?;
        let mut lines = text.lines().skip_while(|line| !line.contains(&format!("rule_{guarded}_")));
        let packets =
            lines.nth(1).and_then(|line| line.trim().strip_prefix("packets ")?.split(' ').next()?.parse().ok());
        Ok(packets.filter(|packets: &u64| *packets >= 20))
    })
    .await?;
    let slipped = arrived(&socket)?;
    println!("back {back:?} after the agent's start; {held_back} datagrams held back, {slipped} slipped out");
    ensure!(slipped == 0, "{slipped} datagrams slipped out before the rules were in force");

    cluster.control_plane.start().await?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    let row = api.wait_status(&resting, "stopped").await?;
    let logs = api.get(&format!("{}/status-logs?limit=1", path(&resting))).await?.data()?;
    ensure!(logs.to_string().contains("server_rebooted"), "no cause: {logs}, {row}");
    api.wait_status(&guarded, "running").await?;
    // The stopped one starts again when it is asked to.
    api.operate(&resting, "start").await?;
    api.wait_status(&resting, "running").await?;
    for id in [&guarded, &resting] {
        api.delete(&path(id), None).await?.data()?;
        wait::until("it is gone", DEADLINE, async || Ok((api.get(&path(id)).await?.status == 404).then_some(())))
            .await?;
        assert_eq!(traces::of_container(&cluster.servers[0], id)?, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_costs_its_container_neither_address_nor_ids_nor_a_request() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let outcome = damaged_record(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())
}

async fn damaged_record(cluster: &mut Cluster) -> Result<()> {
    let api = cluster.tenant.clone();
    let project = api.project("damage").await?;
    // What was taken first is free again: an agent that knew of nobody would give it to the next.
    let first = api.container(&project, "busybox", small("first")).await?;
    let mut containers = Vec::new();
    for name in ["runs", "rests"] {
        let id = api.container(&project, "busybox", small(name)).await?;
        containers.push(id);
    }
    let [runs, rests] = &containers[..] else { anyhow::bail!("two containers") };
    api.delete(&format!("/api/v1/containers/{first}"), None).await?.data()?;
    api.operate(runs, "start").await?;
    api.wait_status(runs, "running").await?;
    let web = probe::web(&cluster.servers[0], runs, PORT, "here")?;
    probe::answers(&web, true).await?;
    let processes = traces::processes_of(runs)?;
    let address = |server: &Server, id: &str| probe::address(server, id);
    let before = (address(&cluster.servers[0], runs)?, address(&cluster.servers[0], rests)?);
    let traffic = Traffic::start(&web);

    // Nothing of the one that runs can be read any more; of the other a bit is flipped.
    cluster.servers[0].stop_agent()?;
    let record = |id: &str| cluster.servers[0].folder.join(format!("state/containers/{id}.json"));
    std::fs::write(record(runs), vec![0; 512])?;
    let mut bytes = std::fs::read(record(rests))?;
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(record(rests), bytes)?;
    // Without the control plane nobody sends the specifications: they are missing, and nobody takes their place.
    cluster.control_plane.stop()?;
    cluster.servers[0].start()?;
    wait::until("the agent", DEADLINE, async || Ok(cluster.servers[0].status().ok())).await?;
    ensure!(address(&cluster.servers[0], runs).is_err(), "a damaged record was used");
    cluster.control_plane.start().await?;
    adopted(cluster, runs).await?;
    state(&cluster.servers[0], rests, "stopped").await?;
    let after = (address(&cluster.servers[0], runs)?, address(&cluster.servers[0], rests)?);
    ensure!(before == after, "{before:?} became {after:?}");

    let new = api.container(&project, "busybox", small("new")).await?;
    api.operate(&new, "start").await?;
    api.wait_status(&new, "running").await?;
    let other = address(&cluster.servers[0], &new)?;
    ensure!(other != before.0 && other != before.1, "{other} was given twice");
    assert_eq!(traces::processes_of(runs)?, processes, "the container was started again");
    let users = |id: &str| -> Result<Vec<u32>> { traces::processes_of(id)?.into_iter().map(probe::uid_of).collect() };
    let (mine, theirs) = (users(runs)?, users(&new)?);
    ensure!(mine.iter().all(|user| !theirs.contains(user)), "{mine:?} and {theirs:?} share ids");
    println!("{:?}", traffic.finish()?);

    // It is an ordinary container again.
    for id in [runs, rests, &new] {
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
        wait::until("it is gone", DEADLINE, async || {
            Ok((api.get(&format!("/api/v1/containers/{id}")).await?.status == 404).then_some(()))
        })
        .await?;
        assert_eq!(traces::of_container(&cluster.servers[0], id)?, Vec::<String>::new());
    }
    Ok(())
}
