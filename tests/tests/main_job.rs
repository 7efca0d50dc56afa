//! The main job through the public API, on the real kernel.

use anyhow::{Context, Result};
use hoody_tests::{
    cluster::{Cluster, Plan},
    probe, traces, wait,
};
use serde_json::{Value, json};
use std::time::Duration;

const PORT: u16 = 8000;

#[tokio::test(flavor = "multi_thread")]
async fn create_start_firewall_env_restart_stats_stop_delete() -> Result<()> {
    let cluster = Cluster::start(Plan::default()).await?;
    let server = &cluster.servers[0];
    let api = &cluster.tenant;
    let before = traces::snapshot(server)?;

    let project = api.project("main-job").await?;
    let container =
        api.container(&project, "busybox", json!({ "name": "web", "environment_vars": { "A": "1" } })).await?;
    let path = format!("/api/v1/containers/{container}");
    api.operate(&container, "start").await?;
    let running = api.wait_status(&container, "running").await?;
    assert_eq!(running["server_id"], server.id);
    assert_eq!(running["environment_vars"], json!({ "A": "1" }));
    assert_eq!(server.exec(&container, &["id", "-u"])?.trim(), "0");
    let outside = traces::processes_of(&container)?;
    assert!(!outside.is_empty());
    for pid in outside {
        assert!(probe::uid_of(pid)? >= 65_536, "process {pid} of the container is one of the server's own users");
    }

    // A web server: reachable, dropped, reachable again.
    let web = probe::web(server, &container, PORT, "hello")?;
    probe::answers(&web, true).await?;
    let rule = json!({ "action": "drop", "protocol": "tcp", "port": PORT, "description": "no web" });
    api.post(&format!("{path}/firewall/ingress"), rule).await?.data()?;
    probe::answers_now(&web, false)?;
    let rules = api.get(&format!("{path}/firewall/rules")).await?.data()?;
    assert_eq!(rules["ingress"].as_array().map(Vec::len), Some(1));
    wait::until("the drop is counted", Duration::from_secs(20), async || {
        probe::answers_now(&web, false)?;
        let rules = api.get(&format!("{path}/firewall/rules")).await?.data()?;
        Ok(rules["ingress"][0]["packets"].as_u64().filter(|packets| *packets > 0))
    })
    .await?;
    api.patch(&format!("{path}/firewall/ingress"), json!({ "port": PORT, "state": "disabled" })).await?.data()?;
    probe::answers_now(&web, true)?;
    api.patch(&format!("{path}/firewall/ingress"), json!({ "port": PORT, "state": "enabled" })).await?.data()?;
    probe::answers_now(&web, false)?;
    api.post(&format!("{path}/firewall/reset"), json!({})).await?.data()?;
    probe::answers_now(&web, true)?;

    // An allow rule closes everything else.
    let allow = json!({ "action": "allow", "protocol": "tcp", "destination_port": "9000-9100,22", "description": "" });
    api.post(&format!("{path}/firewall/ingress"), allow).await?.data()?;
    probe::answers_now(&web, false)?;
    api.delete(&format!("{path}/firewall/ingress"), Some(json!({ "all": true }))).await?.data()?;
    probe::answers_now(&web, true)?;

    // Environment: at the next start.
    api.put(&format!("{path}/env/GREETING"), json!({ "value": "good morning" })).await?.data()?;
    let environment = ["cat", "/proc/1/environ"];
    assert!(!server.exec(&container, &environment)?.contains("GREETING"));
    api.operate(&container, "restart").await?;
    let seen = server.exec(&container, &environment)?;
    assert!(seen.contains("GREETING=good morning") && seen.contains("A=1"), "{seen:?}");
    probe::answers_now(&web, false).context("the web server survived a restart")?;

    // Pause and resume.
    let web = probe::web(server, &container, PORT, "again")?;
    probe::answers(&web, true).await?;
    api.operate(&container, "pause").await?;
    assert_eq!(api.get(&path).await?.data()?["status"], "paused");
    probe::answers_now(&web, false)?;
    api.operate(&container, "resume").await?;
    assert_eq!(api.get(&path).await?.data()?["status"], "running");
    probe::answers(&web, true).await?;

    let stats = wait::until("measurements", Duration::from_secs(20), async || {
        let stats = api.get(&format!("{path}/stats")).await?.data()?;
        // One that was taken before the answers above does not count.
        let has_answered = stats["network"][0]["counters"]["bytes_received"].as_u64() > Some(0);
        Ok((has_answered && stats["measured_at"].as_str() > stats["started_at"].as_str()).then_some(stats))
    })
    .await?;
    assert!(stats["memory"]["usage"].as_f64() > Some(0.0), "{stats}");
    assert!(stats["processes"].as_u64() >= Some(1), "{stats}");

    let logs = api.get(&format!("{path}/status-logs?limit=100&sort_order=asc")).await?.data()?;
    let words: Vec<&str> =
        logs["logs"].as_array().context("logs")?.iter().filter_map(|log| log["to_status"].as_str()).collect();
    assert_eq!(words.first(), Some(&"creating"));
    assert!(words.contains(&"running") && words.contains(&"paused"), "{words:?}");

    // Files survive a stop; a force-stop and a delete leave nothing.
    server.exec(&container, &["sh", "-c", "echo kept > /root/file"])?;
    api.operate(&container, "stop").await?;
    api.wait_status(&container, "stopped").await?;
    api.operate(&container, "start").await?;
    api.wait_status(&container, "running").await?;
    assert_eq!(server.exec(&container, &["cat", "/root/file"])?.trim(), "kept");
    api.operate(&container, "force-stop").await?;
    api.wait_status(&container, "stopped").await?;
    api.delete(&path, None).await?.data()?;
    wait::until("the container is gone", Duration::from_secs(20), async || {
        Ok((api.get(&path).await?.status == 404).then_some(()))
    })
    .await?;
    assert_eq!(traces::of_container(server, &container)?, Vec::<String>::new());
    let after = wait::until("the server is as before", Duration::from_secs(10), async || {
        let after = traces::snapshot(server)?;
        Ok((after == before).then_some(Value::Null))
    })
    .await;
    after.with_context(|| format!("before {before:#?}, after {:#?}", traces::snapshot(server)))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_go_on_while_the_agent_or_the_control_plane_is_down() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let api = cluster.tenant.clone();
    let project = api.project("survival").await?;
    let container = api.container(&project, "busybox", json!({ "name": "web" })).await?;
    api.operate(&container, "start").await?;
    api.wait_status(&container, "running").await?;
    let web = probe::web(&cluster.servers[0], &container, PORT, "hello")?;
    probe::answers(&web, true).await?;
    let started = api.get(&format!("/api/v1/containers/{container}/stats")).await?.data()?["started_at"].clone();

    cluster.servers[0].kill_agent()?;
    probe::answers_now(&web, true)?;
    cluster.wait_online(&cluster.servers[0], false).await?;
    // A write is accepted meanwhile and applied once when the agent is back; an operation is refused.
    let path = format!("/api/v1/containers/{container}");
    let rule = json!({ "action": "drop", "protocol": "tcp", "port": PORT, "description": "" });
    api.post(&format!("{path}/firewall/ingress"), rule).await?.expect(200)?;
    api.post(&format!("{path}/restart"), json!({})).await?.expect(503)?;
    probe::answers_now(&web, true)?;
    cluster.servers[0].start()?;
    probe::answers(&web, false).await?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    api.post(&format!("{path}/firewall/reset"), json!({})).await?.expect(200)?;
    probe::answers_now(&web, true)?;

    cluster.control_plane.kill()?;
    probe::answers_now(&web, true)?;
    cluster.control_plane.start().await?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    probe::answers_now(&web, true)?;
    // The new process tells the agent that it does not know the old link; otherwise it had waited for it.
    let log = std::fs::read_to_string(cluster.servers[0].log())?;
    assert!(log.contains("reset by peer"), "the agent waited for the idle timeout");
    let seen = api.get(&format!("{path}/stats")).await?.data()?;
    assert_eq!(seen["started_at"], started, "the container was restarted");
    assert_eq!(seen["status"], "running");
    Ok(())
}
