//! A server is emptied: what can be moved moves, what cannot says why, and nothing new comes.

use crate::{World, container, container_of};
use anyhow::{Result, ensure};
use hoody_tests::{cluster::Plan, wait};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_emptied_but_for_what_cannot_move() -> Result<()> {
    let world = World::with(Plan::default()).await?;
    let (cluster, api, project) = (&world.cluster, &world.api, &world.project);
    // The least disk that there is: as good as full.
    let other = container_of(cluster, api, project, "other", 16).await?;
    let stays = container(cluster, api, project, "stays").await?;
    api.operate(&stays, "pause").await?;
    // Snapshots, also of one that has no room for more, keep nothing from moving.
    for (container, name) in [(&other, "one"), (&other, "two"), (&stays, "kept")] {
        api.post(&format!("/api/v1/containers/{container}/snapshots"), json!({ "name": name })).await?.data()?;
    }
    let drain = format!("/api/v1/admin/servers/{}/drain", cluster.servers[0].id);
    ensure!(api.post(&drain, json!({})).await?.status == 403, "a tenant may empty any server");
    ensure!(cluster.admin.post(&drain, json!({})).await?.data()?["state"] == "draining");
    let body = json!({ "container_image": "busybox", "server_id": cluster.servers[0].id });
    ensure!(api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.status == 422);
    let mut last = Value::Null;
    wait::until("all that can be moved is", crate::DEADLINE, async || {
        last = cluster.admin.get(&drain).await?.data()?;
        Ok((last["moved"] == 2 && last["failed"] == 1).then_some(()))
    })
    .await?;
    ensure!(last["remaining"] == 1 && last["state"] == "draining", "{last}");
    for moved in last["containers"].as_array().unwrap() {
        println!(
            "{}: {}, pause {} ms, {} bytes",
            moved["container_name"], moved["state"], moved["pause_ms"], moved["bytes"]
        );
        let failed = moved["container_id"] == stays.as_str();
        ensure!((moved["state"] == "failed") == failed && moved["cause"].is_null() != failed, "{moved}");
    }
    world.writes(&world.writer, 1).await?;
    world.writes(&other, 1).await?;
    ensure!(world.get(&other, "/snapshots").await?["snapshot_count"] == 2);
    ensure!(world.get(&stays, "").await?["status"] == "paused");
    // Resumed, it goes too, when that is asked for again.
    api.operate(&stays, "resume").await?;
    cluster.admin.post(&drain, json!({})).await?.data()?;
    wait::until("the server is empty", crate::DEADLINE, async || {
        last = cluster.admin.get(&drain).await?.data()?;
        Ok((last["state"] == "drained" && last["moving"] == 0).then_some(()))
    })
    .await?;
    world.writes(&stays, 1).await?;
    ensure!(cluster.servers[1].pool().join("snapshots").join(&stays).read_dir()?.count() == 1);
    ensure!(cluster.admin.delete(&drain, None).await?.data()?["state"] == "stopped");
    cluster.check_logs()
}
