//! The main job on PostgreSQL, with the control plane killed in the middle of it.

use anyhow::{Context, Result};
use hoody_tests::{
    cluster::{Cluster, Database, Plan},
    postgres::FreshDatabase,
    probe, traces, wait,
};
use serde_json::json;
use std::time::Duration;

const PORT: u16 = 8000;
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_survives_a_kill_of_the_control_plane() -> Result<()> {
    let database = FreshDatabase::create()?;
    let plan = Plan { database: Database::Postgres(database.url()), ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = main_job(&mut cluster, &database).await;
    outcome.with_context(|| cluster.log_tails())?;
    // The cluster lets go of the database before it is dropped.
    drop(cluster);
    Ok(())
}

async fn main_job(cluster: &mut Cluster, database: &FreshDatabase) -> Result<()> {
    let api = cluster.tenant.clone();
    let before = traces::snapshot(&cluster.servers[0])?;
    let project = api.project("postgres").await?;
    let container = api.container(&project, "busybox", json!({ "name": "web" })).await?;
    assert_eq!(database.query("SELECT COUNT(*) FROM containers")?.trim(), "1", "it is not in this database");
    let path = format!("/api/v1/containers/{container}");
    api.operate(&container, "start").await?;
    api.wait_status(&container, "running").await?;
    let web = probe::web(&cluster.servers[0], &container, PORT, "hello")?;
    probe::answers(&web, true).await?;

    let drop_rule = json!({ "action": "drop", "protocol": "tcp", "port": PORT, "description": "no web" });
    api.post(&format!("{path}/firewall/ingress"), drop_rule).await?.data()?;
    probe::answers_now(&web, false)?;

    // Killed while a write waits: the write is either there whole or not at all, and what is there is
    // applied. Rule, container and session are still the same afterwards.
    let started = api.get(&format!("{path}/stats")).await?.data()?["started_at"].clone();
    let writing = {
        let (api, path) = (api.clone(), path.clone());
        tokio::spawn(async move { api.put(&format!("{path}/env/AMID"), json!({ "value": "kill" })).await })
    };
    cluster.control_plane.kill()?;
    // The answer, a broken connection or a refused one: what counts is what is stored.
    let acknowledged = writing.await?.is_ok_and(|answer| answer.status == 200);
    probe::answers_now(&web, false)?;
    cluster.control_plane.start().await?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    probe::answers_now(&web, false)?;
    let stats = api.get(&format!("{path}/stats")).await?.data()?;
    assert_eq!((&stats["started_at"], &stats["status"]), (&started, &json!("running")), "it was restarted");
    let rules = api.get(&format!("{path}/firewall/rules")).await?.data()?;
    assert_eq!(rules["ingress"].as_array().map(Vec::len), Some(1), "{rules}");
    wait::until("the drop is counted", DEADLINE, async || {
        probe::answers_now(&web, false)?;
        let rules = api.get(&format!("{path}/firewall/rules")).await?.data()?;
        Ok(rules["ingress"][0]["packets"].as_u64().filter(|packets| *packets > 0))
    })
    .await?;
    api.patch(&format!("{path}/firewall/ingress"), json!({ "port": PORT, "state": "disabled" })).await?.data()?;
    probe::answers_now(&web, true)?;

    api.put(&format!("{path}/env/GREETING"), json!({ "value": "good morning" })).await?.data()?;
    let stored = api.get(&format!("{path}/env")).await?.data()?["environment_vars"].clone();
    assert!(!acknowledged || stored["AMID"] == "kill", "an acknowledged write is gone: {stored}");
    api.operate(&container, "restart").await?;
    let seen = cluster.servers[0].exec(&container, &["cat", "/proc/1/environ"])?;
    assert!(seen.contains("GREETING=good morning"), "{seen:?}");
    assert_eq!(seen.contains("AMID=kill"), stored["AMID"] == "kill", "{seen:?}");

    // Asked to end in peace between the stop and the deletion.
    api.operate(&container, "force-stop").await?;
    api.wait_status(&container, "stopped").await?;
    cluster.control_plane.stop()?;
    cluster.control_plane.start().await?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    api.delete(&path, None).await?.data()?;
    wait::until("the container is gone", DEADLINE, async || Ok((api.get(&path).await?.status == 404).then_some(())))
        .await?;
    assert_eq!(traces::of_container(&cluster.servers[0], &container)?, Vec::<String>::new());
    let used = cluster.server_row(&cluster.servers[0]).await?["used"].clone();
    assert_eq!(used, json!({ "cpu_millis": 0, "memory_bytes": 0, "disk_bytes": 0, "containers": 0 }));
    let after = wait::until("the server is as before", DEADLINE, async || {
        Ok((traces::snapshot(&cluster.servers[0])? == before).then_some(()))
    })
    .await;
    after.with_context(|| format!("before {before:#?}, after {:#?}", traces::snapshot(&cluster.servers[0])))?;
    api.delete(&format!("/api/v1/projects/{project}"), None).await?.data()?;
    Ok(())
}
