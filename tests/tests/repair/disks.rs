//! Disks that are full.

use super::LOOKS;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    damage::{Full, logged},
    probe,
};
use serde_json::{Value, json};

const PORT: u16 = 8000;
/// Small, because it is filled twice; the reserve is small too, so that an image has room.
const POOL_BYTES: u64 = 384 << 20;
const RESERVE: &str = "pool_reserve_bytes = 33554432";
const STATE_BYTES: u64 = 64 << 20;

async fn created(cluster: &Cluster, project: &str, name: &str) -> Result<String> {
    let specs = json!({ "cpu_cores": 0.2, "memory_mb": 64, "storage_mb": 64 });
    let body = json!({ "name": name, "container_image": "busybox", "specs": specs });
    let row = cluster.tenant.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
    Ok(row["id"].as_str().unwrap_or_default().to_owned())
}

fn cause(row: &Value) -> String {
    row["warnings"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_is_named_and_left_behind() -> Result<()> {
    let plan = Plan { agent_settings: format!("{LOOKS}\n{RESERVE}"), pool_bytes: POOL_BYTES, ..Plan::default() };
    let cluster = Cluster::start(plan).await?;
    let (server, api) = (&cluster.servers[0], &cluster.tenant);
    let project = api.project("full").await?;
    let full = Full::fill(server.pool())?;
    let id = created(&cluster, &project, "one").await?;
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
    let other = created(&cluster, &project, "two").await?;
    api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    drop(full);
    api.operate(&other, "start").await?;
    api.wait_status(&other, "running").await.map(drop)
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
