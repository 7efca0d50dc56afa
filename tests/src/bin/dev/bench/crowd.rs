//! Many containers on one server.

use anyhow::{Context, Result, ensure};
use hoody_tests::{api::Api, cluster::Cluster};
use serde_json::json;

/// A project has at most this many.
const PER_PROJECT: usize = 100;
/// Created at once.
const AT_ONCE: usize = 4;

/// Lets the server take more than this machine has: what the containers reserve they do not use.
pub(super) async fn make_room(cluster: &Cluster) -> Result<()> {
    let path = format!("/api/v1/admin/servers/{}", cluster.servers[0].id);
    let plenty = json!({ "cpu_millis": 1_000_000, "memory_bytes": 1_u64 << 42, "disk_bytes": 1_u64 << 44 });
    cluster.admin.patch(&path, plenty).await?.data().map(drop)
}

/// Makes running containers until there are `count` of these projects; their ids.
pub(super) async fn grow(api: &Api, name: &str, count: usize) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    let mut making = tokio::task::JoinSet::new();
    let mut project = String::new();
    for index in 0..count {
        if index % PER_PROJECT == 0 {
            project = api.project(&format!("{name}-{}", index / PER_PROJECT)).await?;
        }
        if making.len() == AT_ONCE {
            ids.push(making.join_next().await.context("a container")???);
        }
        let (api, project) = (api.clone(), project.clone());
        let body = json!({ "container_image": "busybox", "name": format!("{name}-{index}"), "autostart": true });
        making.spawn(async move {
            let made = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
            ensure!(made["status"] == "running", "the container does not run: {made}");
            Ok(made["id"].as_str().context("a container has an id")?.to_owned())
        });
    }
    while let Some(made) = making.join_next().await {
        ids.push(made??);
    }
    Ok(ids)
}
