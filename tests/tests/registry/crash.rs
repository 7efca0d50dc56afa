//! The control plane is killed at every point that a pull reaches, and started again.

use crate::web;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    faults::Faults,
    registry::Registry,
    wait,
};
use serde_json::json;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_killed_while_it_pulls() -> Result<()> {
    let registry = Registry::start().await?;
    let reference = registry.push(&web(&registry)?, "web:v1", &[])?;
    let mut cluster = Cluster::start(Plan { settings: registry.settings(), ..Plan::default() }).await?;
    let faults = Faults::new()?;
    faults.disarm()?;
    cluster.control_plane.environment.push(faults.environment());
    cluster.control_plane.stop()?;
    cluster.control_plane.start().await?;
    let api = cluster.tenant.clone();
    let project = api.project("pulled").await?;
    for point in hoody_fault::REGISTRY {
        // A server that is not back yet takes no container.
        cluster.wait_online(&cluster.servers[0], true).await?;
        faults.arm(point)?;
        let body = json!({ "container_image": reference, "autostart": true });
        let path = format!("/api/v1/projects/{project}/containers");
        // The answer may be lost with the process that gives it.
        if let Ok(answer) = api.post(&path, body).await {
            answer.data()?;
        }
        wait::until(&format!("killed at {point}"), DEADLINE, async || {
            Ok(cluster.control_plane.process()?.killed()?.is_some().then_some(()))
        })
        .await?;
        faults.disarm()?;
        if *point == "pull.received" {
            // What has arrived is what the next process goes on with.
            let begun = blobs(&cluster)?.into_iter().find(|(name, _)| name.starts_with(".pulling-"));
            ensure!(begun.as_ref().is_some_and(|(_, bytes)| *bytes > 0), "{begun:?}");
        }
        cluster.control_plane.start().await?;
        let listed = api.get(&path).await?.data()?;
        let id = listed["containers"][0]["id"].as_str().context("the container")?.to_owned();
        let running = api.wait_status(&id, "running").await.with_context(|| format!("after {point}"))?;
        ensure!(running.get("image_pull").is_none(), "{running}");
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
        let said = cluster.control_plane.cli(&["image", "collect"])?;
        ensure!(said.starts_with("1 blobs removed"), "after {point}: {said}");
    }
    let left = blobs(&cluster)?;
    // The busybox of the catalogue, and the lock.
    ensure!(left.len() == 2, "{left:?}");
    Ok(())
}

/// The files of the blob folder and their bytes.
fn blobs(cluster: &Cluster) -> Result<Vec<(String, u64)>> {
    let folder = std::fs::read_dir(cluster.control_plane.data_dir().join("blobs"))?;
    folder
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
        })
        .collect()
}
