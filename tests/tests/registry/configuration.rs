//! What an image's configuration says is what its container does, field by field.

use crate::{DEADLINE, busybox, cluster, copy};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::Cluster,
    registry::{Layout, Registry},
    wait,
};
use serde_json::{Value, json};

/// Says how it was started, then waits for the signal that ends it.
const SCRIPT: &str = "echo \"user $(id -u) group $(id -g) groups $(id -G) home $HOME in $(pwd) greeting $GREETING\"; \
     echo first $0 then $1; trap 'echo asked to end; exit 7' USR1; echo ready; while :; do sleep 1 & wait $!; done";

/// An image with accounts of its own.
fn accounts(registry: &Registry) -> Result<Layout> {
    let layout = registry.layout("accounts")?;
    let root = busybox(registry)?;
    layout.layer(|target| {
        copy(&root, target)?;
        std::fs::write(target.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")?;
        std::fs::write(target.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:2000:other,app\n")?;
        Ok(std::fs::create_dir_all(target.join("data"))?)
    })?;
    layout.configure(&[
        "--config.entrypoint=/bin/sh",
        "--config.entrypoint=-c",
        &format!("--config.entrypoint={SCRIPT}"),
        "--config.cmd=zero",
        "--config.cmd=one",
        "--config.env=GREETING=image",
        "--config.workingdir=/made/on/the/way",
        "--config.stopsignal=SIGUSR1",
        "--config.volume=/data",
        "--config.exposedports=8000/tcp",
    ])?;
    Ok(layout)
}

struct Containers<'a> {
    cluster: &'a Cluster,
    registry: &'a Registry,
    layout: Layout,
    project: String,
}

impl Containers<'_> {
    /// A container of the image with this user.
    async fn of_user(&self, name: &str, user: &str, more: Value) -> Result<String> {
        self.layout.configure(&[&format!("--config.user={user}")])?;
        let reference = self.registry.push(&self.layout, &format!("accounts:{name}"), &[])?;
        let specs = json!({ "cpu_cores": 0.25, "memory_mb": 128, "storage_mb": 512 });
        let mut body = json!({ "name": name, "container_image": reference, "autostart": true, "specs": specs });
        let fields = more.as_object().cloned().unwrap_or_default();
        body.as_object_mut().context("an object")?.extend(fields);
        let path = format!("/api/v1/projects/{}/containers", self.project);
        let made = self.cluster.tenant.post(&path, body).await?.data()?;
        Ok(made["id"].as_str().context("an id")?.to_owned())
    }

    async fn says(&self, id: &str, line: &str) -> Result<()> {
        let path = format!("/api/v1/containers/{id}/logs");
        wait::until(&format!("the log says {line:?}"), DEADLINE, async || {
            let log = self.cluster.tenant.get(&path).await?.data()?.to_string();
            Ok(log.contains(line).then_some(()))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_started_and_ended_as_its_image_says() -> Result<()> {
    let registry = Registry::start().await?;
    let layout = accounts(&registry)?;
    let cluster = cluster(&registry).await?;
    let api = &cluster.tenant;
    let project = api.project("configured").await?;
    let containers = Containers { cluster: &cluster, registry: &registry, layout, project };

    // By name: the account's own group, memberships and home.
    let named = containers.of_user("named", "app", json!({})).await?;
    containers.says(&named, "user 1000 group 1001 groups 1001 2000 home /home/app in /made/on/the/way").await?;
    containers.says(&named, "greeting image").await?;
    // Entrypoint and command are one line; what follows the script are its arguments.
    containers.says(&named, "first zero then one").await?;
    containers.says(&named, "ready").await?;
    // A program that an operator runs has its own user's home.
    let home = cluster.servers[0].exec(&named, &["/bin/sh", "-c", "echo $HOME"])?;
    ensure!(home.trim() == "/root", "{home}");

    // A volume is a folder like others: what is written there stays.
    cluster.servers[0].exec(&named, &["/bin/sh", "-c", "echo kept > /data/file"])?;
    // It is asked to end by the image's signal, and heard.
    api.operate(&named, "stop").await?;
    api.wait_status(&named, "stopped").await?;
    containers.says(&named, "asked to end").await?;
    api.operate(&named, "start").await?;
    api.wait_status(&named, "running").await?;
    let kept = cluster.servers[0].exec(&named, &["cat", "/data/file"])?;
    ensure!(kept == "kept\n", "{kept}");

    // The other ways to name a user; the container's own environment wins over the image's.
    let over = json!({ "environment_vars": { "GREETING": "mine" } });
    for (name, user, line) in [
        ("numbers", "1000:2000", "user 1000 group 2000 groups 2000 home /home/app"),
        ("mixed", "app:extra", "user 1000 group 2000 groups 2000 home /home/app"),
        ("number", "1000", "user 1000 group 1001 groups 1001 2000 home /home/app"),
        ("stranger", "4242", "user 4242 group 0 groups 0 home / in"),
    ] {
        let id = containers.of_user(name, user, over.clone()).await?;
        containers.says(&id, line).await?;
        containers.says(&id, "greeting mine").await?;
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    }

    // One that the image does not have: said, and nothing runs as somebody else.
    let nobody = containers.of_user("nobody", "no-such-user", json!({})).await?;
    let failed = api.wait_status(&nobody, "failed").await?;
    ensure!(failed["warnings"].to_string().contains("no user \\\"no-such-user\\\" in the image"), "{failed}");
    Ok(())
}
