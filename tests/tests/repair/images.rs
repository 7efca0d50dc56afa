//! Images whose bytes are not what their digest says.

use super::LOOKS;
use anyhow::{Context, Result};
use hoody_tests::{
    cluster::{Cluster, Plan},
    damage::logged,
    traces,
};
use serde_json::json;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_content_is_refused_and_fetched_again() -> Result<()> {
    let cluster = Cluster::start(Plan { agent_settings: LOOKS.into(), servers: 2, ..Plan::default() }).await?;
    let api = &cluster.tenant;
    let blobs = cluster.folder().join("control-plane/blobs");
    // Of the image's blobs the layer is the largest.
    let entries = fs::read_dir(&blobs)?.collect::<std::io::Result<Vec<_>>>()?;
    let layer = entries.iter().max_by_key(|entry| entry.metadata().map(|found| found.len()).unwrap_or(0));
    let layer = layer.context("no blob")?.path();
    let good = fs::read(&layer)?;
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    let project = api.project("images").await?;
    let create = async |name: &str, server: &str| -> Result<String> {
        let body = json!({ "name": name, "container_image": "busybox", "autostart": true, "server_id": server });
        let row = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
        Ok(row["id"].as_str().context("no id")?.to_owned())
    };

    // The source is wrong: nothing of it is used, and with the right bytes it goes on by itself.
    fs::write(&layer, &bad)?;
    let one = create("one", &cluster.servers[0].id).await?;
    api.wait_status(&one, "failed").await?;
    logged(api, &one, "failed", "image_corrupt").await?;
    let files = traces::of_container(&cluster.servers[0], &one)?;
    anyhow::ensure!(files.iter().all(|trace| trace.starts_with("file ") && !trace.contains("pool")), "{files:#?}");
    fs::write(&layer, &good)?;
    api.wait_status(&one, "running").await?;

    // What lies on the node already is wrong: it is thrown away and fetched again.
    let name = layer.file_name().and_then(|name| name.to_str()).context("no name")?;
    fs::write(cluster.servers[1].folder.join("state/blobs").join(format!("{name}.partial")), &bad)?;
    let two = create("two", &cluster.servers[1].id).await?;
    api.wait_status(&two, "running").await?;
    logged(api, &two, "failed", "image_corrupt").await.map(drop)
}
