//! Layers as other tools write them: cut short by `umoci insert`, compressed with zstd.

use crate::{DEADLINE, busybox, copy, images, same, tree};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    registry::Registry,
    wait,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_umoci_insert_and_layers_in_zstd_are_what_umoci_unpacks() -> Result<()> {
    let registry = Registry::start().await?;
    let layout = registry.layout("inserted")?;
    let root = busybox(&registry)?;
    layout.layer(|target| copy(&root, target))?;
    // Each ends with its last file's last byte: no padding, no end.
    let from = registry.folder().join("inserted-files");
    std::fs::create_dir_all(from.join("sub"))?;
    std::fs::write(from.join("sub/odd"), "hello")?;
    layout.insert(&[from.as_os_str(), "/etc/inserted".as_ref()])?;
    std::fs::write(from.join("sub/odd"), vec![7; 1000])?;
    layout.insert(&["--opaque".as_ref(), from.as_os_str(), "/etc/inserted".as_ref()])?;
    layout.insert(&["--whiteout".as_ref(), "/etc/passwd".as_ref()])?;
    layout.configure(&["--config.cmd=/bin/sleep", "--config.cmd=1000"])?;
    let gzip = registry.push(&layout, "inserted:gzip", &[])?;
    // Into a registry of its own: skopeo takes what is there, compressed otherwise, for good enough.
    let other = Registry::start().await?;
    let zstd = other.push(&layout, "inserted:zstd", &["--dest-compress-format", "zstd"])?;
    let expected = tree(&registry.unpack(&gzip)?)?;
    ensure!(expected.contains("'etc/inserted/sub/odd'") && !expected.contains("'etc/passwd'"), "{expected}");

    let both = format!("{},{}", registry.host(), other.host());
    let settings =
        vec![("HOODY_REGISTRY_ALLOWED_NETWORKS", "127.0.0.1/32".to_owned()), ("HOODY_REGISTRY_PLAIN_HTTP", both)];
    let cluster = Cluster::start(Plan { settings, ..Plan::default() }).await?;
    let api = &cluster.tenant;
    let project = api.project("layers").await?;
    let before = images(&cluster)?;
    for (name, reference) in [("gzip", &gzip), ("zstd", &zstd)] {
        let id = api.container(&project, reference, json!({ "name": name, "autostart": true })).await?;
        api.wait_status(&id, "running").await?;
        wait::until("its program", DEADLINE, async || {
            Ok(cluster.servers[0].exec(&id, &["ps", "-o", "args"])?.contains("sleep 1000").then_some(()))
        })
        .await?;
    }
    let made: Vec<_> = images(&cluster)?.into_iter().filter(|path| !before.contains(path)).collect();
    ensure!(made.len() == 2, "{made:?}");
    for path in &made {
        same(&tree(path)?, &expected)?;
    }
    // That it is zstd that was unpacked is what the catalogue says of the same reference.
    let settings: Vec<(&str, &str)> = cluster.control_plane.environment.iter().map(|(k, v)| (&**k, &**v)).collect();
    cluster.control_plane.cli_with(&settings, &["image", "pull", "inserted/zstd", &zstd])?;
    let listed = cluster.admin.get("/api/v1/admin/images").await?.data()?;
    let image = listed["images"].as_array().into_iter().flatten().find(|image| image["alias"] == "inserted/zstd");
    let layers = image.and_then(|image| image["layers"].as_array()).context("the image's layers")?;
    ensure!(layers.len() == 4 && layers.iter().all(|layer| layer["compression"] == "zstd"), "{layers:?}");
    Ok(())
}
