//! Snapshots, restorations and copies through the public API, on a real pool.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::{Answer, Api},
    cluster::{Cluster, Plan},
    probe, traces, wait,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// A cluster with a container that runs.
struct World {
    cluster: Cluster,
    api: Api,
    project: String,
    container: String,
}

impl World {
    async fn new() -> Result<Self> {
        let cluster = Cluster::start(Plan::default()).await?;
        let api = cluster.tenant.clone();
        let project = api.project("snapshots").await?;
        let body = json!({ "name": "web", "autostart": true, "specs": { "cpu_cores": 0.2, "storage_mb": 64, "memory_mb": 64 } });
        let container = api.container(&project, "busybox", body).await?;
        Ok(Self { cluster, api, project, container })
    }

    async fn shell(&self, container: &str, script: &str) -> Result<Value> {
        let path = format!("/api/v1/containers/{container}/exec");
        self.api.post(&path, json!({ "argv": ["sh", "-c", script] })).await?.data()
    }

    /// What a script that succeeds writes.
    async fn said(&self, container: &str, script: &str) -> Result<String> {
        let done = self.shell(container, script).await?;
        ensure!(done["exit_code"] == 0, "{script}: {done}");
        Ok(done["stdout"]["data"].as_str().context("a text")?.trim().to_owned())
    }

    fn path(&self, more: &str) -> String {
        format!("/api/v1/containers/{}/{more}", self.container)
    }

    async fn take(&self, name: &str) -> Result<Value> {
        self.api.post(&self.path("snapshots"), json!({ "name": name })).await?.data()
    }

    async fn restore(&self, name: &str) -> Result<Answer> {
        self.api.put(&self.path(&format!("snapshots/{name}")), json!({})).await
    }

    async fn copy(&self, body: Value) -> Result<Value> {
        self.api.post(&self.path("copy"), body).await?.data()
    }

    /// What the server's pool holds beside images.
    fn held(&self) -> Result<Vec<String>> {
        let pool = self.cluster.servers[0].pool();
        let mut held = Vec::new();
        for folder in ["containers", "snapshots"] {
            for entry in std::fs::read_dir(pool.join(folder))? {
                held.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
            }
        }
        Ok(held)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_goes_back_to_its_snapshot_and_everything_goes_with_it() -> Result<()> {
    let mut world = World::new().await?;
    let id = world.container.clone();
    world.said(&id, "echo one > /state; dd if=/dev/zero of=/big bs=1M count=8").await?;
    let taken = world.take("before-upgrade").await?;
    let size = taken["snapshot"]["size"].as_u64().context("a size")?;
    ensure!((8 << 20..16 << 20).contains(&size), "{taken}");
    world.said(&id, "echo two > /state; rm /big; touch /new").await?;
    let address = probe::address(&world.cluster.servers[0], &id)?;
    let begun = Instant::now();
    world.restore("before-upgrade").await?.data()?;
    println!("restored in {:?}", begun.elapsed());
    let row = world.api.get(&format!("/api/v1/containers/{id}")).await?.data()?;
    ensure!(row["status"] == "running" && row["last_used_snapshot"] == "before-upgrade", "{row}");
    let state = world.said(&id, "cat /state; ls /new /big 2>/dev/null; wc -c < /big").await?;
    assert_eq!(state, "one\n/big\n8388608");
    assert_eq!(probe::address(&world.cluster.servers[0], &id)?, address);

    // While the control plane and the agent are started again it stays, and it is restored without the first process
    // where none is wanted.
    world.cluster.servers[0].kill_agent()?;
    world.cluster.servers[0].start()?;
    wait::until("the link", DEADLINE, async || {
        // It may just be starting.
        let Ok(status) = world.cluster.servers[0].status() else { return Ok(None) };
        Ok((status["link"]["state"] == "up" && status["unacknowledged"] == 0).then_some(()))
    })
    .await?;
    world.said(&id, "echo three > /state").await?;
    world.api.operate(&id, "stop").await?;
    world.restore("before-upgrade").await?.data()?;
    assert_eq!(world.api.get(&format!("/api/v1/containers/{id}")).await?.data()?["status"], "stopped");
    world.api.operate(&id, "start").await?;
    assert_eq!(world.said(&id, "cat /state").await?, "one");

    let listed = world.api.get(&world.path("snapshots")).await?.data()?;
    assert_eq!((&listed["snapshot_count"], &listed["max_snapshots"]), (&json!(1), &json!(10)));
    world.take("second").await?;
    world.api.delete(&world.path("snapshots/before-upgrade"), None).await?.data()?;
    world.restore("before-upgrade").await?.expect_refusal(404, "NOT_FOUND")?;
    assert_eq!(world.held()?, [format!("containers/{id}"), format!("snapshots/{id}")]);
    let logs = world.api.get(&world.path("status-logs")).await?.body.to_string();
    ensure!(logs.contains("restore_snapshot"), "{logs}");

    world.api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    let left = traces::of_container(&world.cluster.servers[0], &id)?;
    ensure!(left.is_empty(), "left: {left:?}");
    assert_eq!(world.held()?, [""; 0]);
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_before_comes_back_where_the_restored_container_does_not_start() -> Result<()> {
    let world = World::new().await?;
    let id = &world.container;
    // A snapshot in which nothing can be mounted at /proc.
    world.said(id, "echo broken > /state").await?;
    let root = world.cluster.servers[0].pool().join("containers").join(id);
    let (proc, aside) = (root.join("proc"), root.join("proc-aside"));
    std::fs::rename(&proc, &aside)?;
    std::os::unix::fs::symlink("/nowhere", &proc)?;
    world.take("broken").await?;
    std::fs::remove_file(&proc)?;
    std::fs::rename(&aside, &proc)?;
    world.said(id, "echo whole > /state").await?;
    let refused = world.restore("broken").await?.expect(502)?;
    assert_eq!(refused["error"]["details"]["cause"], "restore_failed", "{refused}");
    world.api.wait_status(id, "running").await?;
    assert_eq!(world.said(id, "cat /state").await?, "whole");
    assert_eq!(world.held()?, [format!("containers/{id}"), format!("snapshots/{id}")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_lives_on_its_own() -> Result<()> {
    let world = World::new().await?;
    let (id, project) = (&world.container, &world.project);
    world.said(id, "echo one > /state; mkdir -p /root/.ssh; echo 0123456789abcdef > /etc/machine-id").await?;
    world.take("clean").await?;
    world.said(id, "echo two > /state").await?;
    let block = json!({ "type": "block" });
    world.api.put(&world.path("network"), block).await?.data()?;
    world.api.post(&world.path("network/start"), json!({})).await?.data()?;
    let rule = json!({ "action": "drop", "protocol": "tcp", "port": 8000, "description": "closed" });
    world.api.post(&world.path("firewall/ingress"), rule).await?.data()?;

    let begun = Instant::now();
    let live = world.copy(json!({ "name": "live" })).await?;
    println!("copied and started in {:?}", begun.elapsed());
    let free = json!({ "name": "old", "source_snapshot": "clean", "copy_network_rules": false,
        "copy_firewall_rules": false, "target_project_id": project });
    let old = world.copy(free).await?;
    let copy_of = |data: &Value| data["id"].as_str().map(str::to_owned).context("an id");
    let (live, old) = (copy_of(&live)?, copy_of(&old)?);
    for copy in [&live, &old] {
        let row = world.api.wait_status(copy, "running").await?;
        ensure!(row["source_container_id"] == **id && row["kvm"] == false, "{row}");
    }
    assert_eq!(world.said(&live, "cat /state; cat /etc/machine-id; hostname").await?, "two\nlive");
    assert_eq!(world.said(&old, "cat /state").await?, "one");
    let server = &world.cluster.servers[0];
    let addresses = [id, &live, &old].map(|id| probe::address(server, id));
    let [a, b, c] = addresses.map(|address| address.map_err(|error| error.to_string()));
    ensure!(a != b && b != c && a != c, "{a:?} {b:?} {c:?}");
    // What its origin may not, it may not either; unless that was asked.
    let network = async |copy: &str| world.api.get(&format!("/api/v1/containers/{copy}/network")).await?.data();
    let blocked = network(&live).await?;
    ensure!(blocked["remote_status"]["is_running"] == true, "{blocked}");
    ensure!(network(&old).await?["configured"] == false);
    let rules = async |copy: &str| world.api.get(&format!("/api/v1/containers/{copy}/firewall/rules")).await?.data();
    ensure!(rules(&live).await?.to_string().contains("8000"));
    ensure!(!rules(&old).await?.to_string().contains("8000"));

    // Nobody shares anything.
    world.said(&live, "echo mine > /state").await?;
    assert_eq!(world.said(id, "cat /state").await?, "two");
    world.api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    assert_eq!(world.said(&old, "cat /state").await?, "one");
    world.api.operate(&live, "restart").await?;
    assert_eq!(world.said(&live, "cat /state").await?, "mine");
    for copy in [&live, &old] {
        world.api.delete(&format!("/api/v1/containers/{copy}"), None).await?.data()?;
        let left = traces::of_container(server, copy)?;
        ensure!(left.is_empty(), "left: {left:?}");
    }
    assert_eq!(world.held()?, [""; 0]);
    Ok(())
}
