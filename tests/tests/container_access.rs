//! What reaches into a running container: its SSH key in its file, and what is seen of its processes and sockets.

use anyhow::{Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    wait,
};
use serde_json::{Value, json};
use std::time::Duration;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
const FILE: &str = "/root/.ssh/authorized_keys";
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_in_its_file_and_the_inside_is_seen() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let api = cluster.tenant.clone();
    let project = api.project("access").await?;
    let made = json!({ "name": "web", "ssh_public_key": format!("{KEY} ann") });
    let container = api.container(&project, "busybox", made).await?;
    let path = format!("/api/v1/containers/{container}");
    api.operate(&container, "start").await?;
    api.wait_status(&container, "running").await?;
    let server = &cluster.servers[0];
    let sh = |script: &str| server.exec(&container, &["sh", "-c", script]);
    ensure!(sh(&format!("cat {FILE}"))?.trim() == format!("{KEY} ann hoody:ssh_public_key"));
    ensure!(sh(&format!("stat -c '%u %g %a' /root/.ssh {FILE}"))?.lines().eq(["0 0 700", "0 0 600"]));

    // While it runs; what its owner added stays.
    sh(&format!("echo 'ssh-rsa AAAAmine me' >> {FILE}"))?;
    api.patch(&path, json!({ "ssh_public_key": KEY })).await?.data()?;
    ensure!(sh(&format!("cat {FILE}"))? == format!("ssh-rsa AAAAmine me\n{KEY} hoody:ssh_public_key\n"));
    // A trap: the key is not placed, the container runs on, and its owner is told.
    sh("rm -r /root/.ssh && ln -s /tmp /root/.ssh")?;
    api.patch(&path, json!({ "ssh_public_key": format!("{KEY} again") })).await?.data()?;
    let warned = api.get(&path).await?.data()?;
    ensure!(warned["status"] == "running" && has_warning(&warned, "ssh_key_not_placed"), "{warned}");
    ensure!(sh("ls /tmp")?.is_empty());
    sh("rm /root/.ssh")?;
    api.patch(&path, json!({ "ssh_public_key": null })).await?.data()?;
    ensure!(!has_warning(&api.get(&path).await?.data()?, "ssh_key_not_placed"));
    ensure!(sh("ls -a /root | grep -c ssh || true")?.trim() == "0");

    // What runs inside.
    server.exec_detached(&container, &["nc", "-l", "-p", "8081"])?;
    let seen = wait::until("the listening socket", PATIENCE, async || {
        let info = api.get(&format!("{path}?runtime=true")).await?.data()?["runtime_info"].clone();
        let services = info["network_services"].as_array().cloned().unwrap_or_default();
        Ok(services.iter().any(|service| service["port"] == 8081).then_some(info))
    })
    .await?;
    let service = &seen["network_services"][0];
    ensure!(service["protocol"] == "tcp" || service["protocol"] == "tcp6", "{service}");
    ensure!(
        service["user"] == "root" && service["args"].as_str().is_some_and(|args| args.contains("8081")),
        "{service}"
    );
    ensure!(seen["processes"].as_array().is_some_and(|all| all.iter().any(|process| process["pid"] == 1)), "{seen}");
    ensure!(seen["process_count"].as_u64() >= Some(2), "{seen}");
    let listed = api.get("/api/v1/containers?runtime=true").await?.data()?;
    ensure!(listed["containers"][0]["runtime_info"]["process_count"].is_number(), "{listed}");

    // With the server away it is absent, and said so.
    cluster.servers[0].kill_agent()?;
    let away = wait::until("the server is offline", PATIENCE, async || {
        let data = api.get(&format!("{path}?runtime=true")).await?.data()?;
        Ok(has_warning(&data, "runtime_info_unavailable").then_some(data))
    })
    .await?;
    ensure!(away["runtime_info"].is_null(), "{away}");
    Ok(())
}

fn has_warning(container: &Value, kind: &str) -> bool {
    container["warnings"].as_array().is_some_and(|all| all.iter().any(|warning| warning["type"] == kind))
}
