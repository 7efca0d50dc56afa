//! Folders of one container that appear in others, and RAM disks: on the real kernel, through the public API, with
//! hostile containers on either side.

mod hostile;
mod lifecycle;
mod places;
mod ramdisk;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan, Server, run},
    wait,
};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};

const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    cluster: Cluster,
    project: String,
    source: String,
    target: String,
}

impl World {
    async fn new(plan: Plan) -> Result<Self> {
        let cluster = Cluster::start(plan).await?;
        let project = cluster.tenant.project("shares").await?;
        let server = cluster.servers[0].id.clone();
        let mut made = Vec::new();
        for name in ["source", "target"] {
            let more = json!({ "name": name, "server_id": server, "autostart": true, "specs": specs() });
            let id = cluster.tenant.container(&project, "busybox", more).await?;
            cluster.tenant.wait_status(&id, "running").await?;
            made.push(id);
        }
        let (target, source) = (made.pop().context("two")?, made.pop().context("two")?);
        let world = Self { cluster, project, source, target };
        world.sh(&world.source, "mkdir -p /srv/data && echo hello > /srv/data/file")?;
        Ok(world)
    }

    fn api(&self) -> &Api {
        &self.cluster.tenant
    }

    fn server(&self) -> &Server {
        &self.cluster.servers[0]
    }

    /// What a script in a container prints.
    fn sh(&self, container: &str, script: &str) -> Result<String> {
        self.server().exec(container, &["sh", "-c", script])
    }

    fn succeeds(&self, container: &str, script: &str) -> bool {
        self.sh(container, script).is_ok()
    }

    /// Runs a script as a process with every capability in the container's namespaces: more than any has that a tenant
    /// can start.
    fn as_privileged(&self, container: &str, script: &str) -> Result<String> {
        let pid = self.first_process(container)?;
        run(Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-m", "-U", "-p", "--setuid", "0", "--setgid", "0", "--"])
            .args(["/bin/sh", "-c", script]))
    }

    fn first_process(&self, container: &str) -> Result<i32> {
        let file = self.server().run_dir().join(format!("runtime/containers/{container}/pid"));
        Ok(std::fs::read_to_string(file)?.trim().parse()?)
    }

    /// Shares a folder of the source with the target.
    async fn share(&self, more: Value) -> Result<Value> {
        let mut body =
            json!({ "path": "/srv/data", "mode": "rw", "target_container_id": self.target, "alias": "data" });
        for (name, value) in more.as_object().context("an object")? {
            body[name] = value.clone();
        }
        self.api()
            .post(&format!("/api/v1/containers/{}/storage/shares", self.source), body)
            .await?
            .expect(201)
            .map(|answer| answer["data"].clone())
    }

    /// The share as the API tells of it.
    async fn told(&self, share: &Value) -> Result<Value> {
        self.api().get(&self.path(share)).await?.data()
    }

    fn path(&self, share: &Value) -> String {
        format!("/api/v1/containers/{}/storage/shares/{}", self.source, share["id"].as_str().unwrap_or_default())
    }

    /// Waits until a script in the container succeeds.
    async fn until(&self, container: &str, script: &str) -> Result<()> {
        wait::until(script, DEADLINE, async || Ok(self.succeeds(container, script).then_some(()))).await
    }

    /// Waits until the server has mounted the share in the target again, or said why not.
    async fn until_status(&self, share: &Value, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until("the share's status", DEADLINE, async || {
            let told = self.told(share).await?;
            Ok(holds(&told).then_some(told))
        })
        .await
    }
}

/// Small enough for several on one machine.
fn specs() -> Value {
    json!({ "cpu_cores": 0.25, "memory_mb": 96, "storage_mb": 64 })
}

/// The look at what others have changed comes often.
fn plan() -> Plan {
    Plan { agent_settings: "drift_interval_s = 1\nramdisk_pool_mib = 96".to_owned(), ..Plan::default() }
}

fn ensure_all(problems: Vec<String>) -> Result<()> {
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}
