//! Disks that are full.

use super::LOOKS;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    damage::{Full, logged},
    probe, wait,
};
use serde_json::{Value, json};

const PORT: u16 = 8000;
/// Small, because it is filled twice; the reserve is small too, so that an image has room.
const POOL_BYTES: u64 = 384 << 20;
const RESERVE: &str = "pool_reserve_bytes = 33554432";
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
const STATE_BYTES: u64 = 64 << 20;

fn wanted(cluster: &Cluster, name: &str) -> Value {
    let specs = json!({ "cpu_cores": 0.2, "memory_mb": 64, "storage_mb": 64 });
    // By name, so that it may wait for its server.
    json!({ "name": name, "container_image": "busybox", "specs": specs, "server_id": cluster.servers[0].id })
}

async fn created(cluster: &Cluster, project: &str, name: &str) -> Result<String> {
    let body = wanted(cluster, name);
    let row = cluster.tenant.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
    Ok(row["id"].as_str().unwrap_or_default().to_owned())
}

fn cause(row: &Value) -> String {
    row["warnings"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_is_named_and_left_behind() -> Result<()> {
    let plan = Plan { agent_settings: format!("{LOOKS}\n{RESERVE}"), pool_bytes: POOL_BYTES, ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let project = cluster.tenant.project("full").await?;
    // Accepted before anybody knew that the pool was full.
    cluster.servers[0].stop_agent()?;
    cluster.wait_online(&cluster.servers[0], false).await?;
    let id = created(&cluster, &project, "one").await?;
    let full = Full::fill(cluster.servers[0].pool())?;
    cluster.servers[0].start()?;
    let (server, api) = (&cluster.servers[0], &cluster.tenant);
    let row = api.wait_status(&id, "failed").await?;
    ensure!(cause(&row).contains("disk"), "{row}");
    logged(api, &id, "failed", "no_space").await?;
    drop(full);
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;

    // What is there works on a full pool.
    let full = Full::fill(server.pool())?;
    let web_needs_no_room = server.exec(&id, &["cat", "/proc/uptime"]);
    ensure!(web_needs_no_room.is_ok(), "{web_needs_no_room:?}");
    api.operate(&id, "stop").await?;
    api.wait_status(&id, "stopped").await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    // Nothing new is begun on it, and the record says so once.
    health(&cluster, "full").await?;
    let refused = api.post(&format!("/api/v1/projects/{project}/containers"), wanted(&cluster, "two")).await?;
    ensure!(refused.expect(422)?.to_string().contains("storage is full"));
    let copied = api.post(&format!("/api/v1/containers/{id}/copy"), json!({ "name": "copy" })).await?;
    ensure!(copied.expect(422)?.to_string().contains("storage is full"));
    let taken = api.post(&format!("/api/v1/containers/{id}/snapshots"), json!({})).await?;
    ensure!(taken.expect_refusal(409, "CONFLICT")?.to_string().contains("is full"));
    drop(full);
    health(&cluster, "ok").await?;
    let other = created(&cluster, &project, "two").await?;
    api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    api.wait_status(&other, "stopped").await?;
    let told = api.get("/api/v1/events?event_type=server.health_changed&limit=500").await?.body.to_string();
    let levels = |level: u32| told.matches(&format!("\"level\":{level},")).count();
    // It was full twice.
    ensure!(levels(95) == 2 && levels(0) == 2 && told.contains("used_percent"), "{told}");
    Ok(())
}

/// Waits until the server's storage is known to be so.
async fn health(cluster: &Cluster, word: &str) -> Result<()> {
    let path = format!("/api/v1/servers/{}/runtime", cluster.servers[0].id);
    wait::until(&format!("the storage is {word}"), DEADLINE, async || {
        let runtime = cluster.tenant.get(&path).await?.data()?;
        Ok((runtime["storage"]["health"] == word).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_folder_is_named_and_left_behind() -> Result<()> {
    let plan = Plan { agent_settings: LOOKS.into(), state_bytes: Some(STATE_BYTES), ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let api = cluster.tenant.clone();
    let project = api.project("full").await?;
    let id = api.container(&project, "busybox", json!({ "name": "web" })).await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    let web = probe::web(&cluster.servers[0], &id, PORT, "hello")?;
    probe::answers(&web, true).await?;

    let full = Full::fill(&cluster.servers[0].folder.join("state"))?;
    api.operate(&id, "stop").await?;
    let row = api.wait_status(&id, "failed").await.with_context(|| cluster.log_tails())?;
    ensure!(cause(&row).contains("disk"), "{row}");
    logged(&api, &id, "failed", "not_persisted").await?;
    probe::answers_now(&web, true)?;
    cluster.servers[0].agent()?.check()?;
    // An agent that starts with a full disk looks after its containers too.
    cluster.servers[0].kill_agent()?;
    cluster.servers[0].start()?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    probe::answers_now(&web, true)?;
    cluster.servers[0].agent()?.check()?;
    // With room again what was asked is done without being asked again.
    drop(full);
    api.wait_status(&id, "stopped").await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await.map(drop)
}
