//! Moves of containers from one server to another over the public API: two real agents with pools of their own, and the
//! control plane between them. The container's first process writes numbered lines into a file as fast as it can be
//! seen to: each line is there once, and at no time do two first processes write.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

#[path = "../transfers/content.rs"]
mod content;
mod crashes;
mod drain;
mod pause;
mod snapshots;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::{Answer, Api},
    cluster::{Cluster, Plan},
    traces, wait,
};
use serde_json::{Value, json};
use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Counts on from the last line of its file; ends when asked.
const WRITER: &str = "#!/bin/sh\ntrap 'exit 0' TERM\ncount=$(wc -l < /srv/lines 2>/dev/null || echo 0)\n\
    while :; do count=$((count + 1)); echo $count >> /srv/lines; usleep 5000; done\n";

/// Two servers; a container that writes runs on the first.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) api: Api,
    pub(crate) project: String,
    pub(crate) writer: String,
}

impl World {
    pub(crate) async fn with(plan: Plan) -> Result<Self> {
        let cluster = Cluster::start(Plan { servers: 2, ..plan }).await?;
        let api = cluster.tenant.clone();
        let project = api.project("moves").await?;
        let writer = container(&cluster, &api, &project, "writer").await?;
        Ok(Self { cluster, api, project, writer })
    }

    /// Where a container's root file system is on the server's pool.
    pub(crate) fn root(&self, server: usize, container: &str) -> PathBuf {
        self.cluster.servers[server].pool().join("containers").join(container)
    }

    /// The lines that the container wrote: each once, in order.
    pub(crate) fn lines(&self, server: usize, container: &str) -> Result<usize> {
        let text = fs::read_to_string(self.root(server, container).join("srv/lines"))?;
        let mut count = 0;
        for line in text.lines() {
            count += 1;
            ensure!(
                line.parse::<usize>().ok() == Some(count),
                "line {count} says {line:?}: one was lost or written twice"
            );
        }
        Ok(count)
    }

    /// Where each of the container's snapshots is on the server's pool, by what `file` says in it; an error where there are
    /// others than those that are listed.
    pub(crate) async fn snapshots(
        &self,
        server: usize,
        container: &str,
        file: &str,
    ) -> Result<HashMap<String, PathBuf>> {
        let folder = self.cluster.servers[server].pool().join("snapshots").join(container);
        let mut there = HashMap::new();
        if folder.exists() {
            for entry in folder.read_dir()? {
                let path = entry?.path();
                let said = fs::read_to_string(path.join(file)).with_context(|| format!("{}/{file}", path.display()))?;
                there.insert(said, path);
            }
        }
        let listed = self.get(container, "/snapshots").await?;
        ensure!(listed["snapshot_count"] == there.len(), "{there:?} are there, listed are {listed}");
        Ok(there)
    }

    pub(crate) async fn take(&self, container: &str, name: &str) -> Result<Value> {
        let body = json!({ "name": name, "alias": format!("{name} it"), "expiry": 9 });
        self.api.post(&format!("/api/v1/containers/{container}/snapshots"), body).await?.data()
    }

    pub(crate) async fn get(&self, container: &str, what: &str) -> Result<Value> {
        self.api.get(&format!("/api/v1/containers/{container}{what}")).await?.data()
    }

    pub(crate) async fn begin(&self, container: &str, target: usize) -> Result<Answer> {
        let body = json!({ "target_server_id": self.cluster.servers[target].id });
        self.api.post(&format!("/api/v1/containers/{container}/move"), body).await
    }

    /// Waits for the end of the container's move.
    pub(crate) async fn ended(&self, container: &str) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait::until("the end of the move", DEADLINE, async || {
            last = self.get(container, "/move").await?;
            Ok((!last["ended_at"].is_null()).then(|| last.clone()))
        });
        found.await.with_context(|| format!("last seen: {last}"))
    }

    /// Waits until the container writes on that server, and nothing of it is left on the other.
    pub(crate) async fn writes(&self, container: &str, server: usize) -> Result<()> {
        self.api.wait_status(container, "running").await?;
        let before = self.lines(server, container)?;
        let servers: Vec<String> = self.cluster.servers.iter().map(|server| server.name.to_string()).collect();
        wait::until("more lines", DEADLINE, async || {
            alone(&servers, container)?;
            Ok((self.lines(server, container)? > before).then_some(()))
        })
        .await?;
        let mut left = Vec::new();
        wait::until("nothing of it on the other server", DEADLINE, async || {
            left = self.left(1 - server, container)?;
            Ok(left.is_empty().then_some(()))
        })
        .await
        .with_context(|| format!("left: {left:?}"))
    }

    /// What a server has of the container, of its transfers too.
    pub(crate) fn left(&self, server: usize, container: &str) -> Result<Vec<String>> {
        let server = &self.cluster.servers[server];
        let here = |path: &PathBuf| path.to_string_lossy().contains(&*server.name);
        let mut left: Vec<PathBuf> = traces::mounts(container)?.into_iter().filter(here).collect();
        left.extend(traces::cgroups(container).into_iter().filter(here));
        let kept =
            ["containers", "snapshots", "transfers", "exports"].map(|kind| server.pool().join(kind).join(container));
        let record = server.folder.join("state/containers").join(format!("{container}.json"));
        left.extend(kept.into_iter().chain([record]).filter(|path| path.exists()));
        let link = format!("hy{}", &container[12..]);
        let links = traces::container_links(server)?.into_iter().filter(|name| *name == link);
        Ok(left.into_iter().map(|path| path.display().to_string()).chain(links).collect())
    }
}

/// Fails where processes of the container run on more than one of the servers.
pub(crate) fn alone(servers: &[String], container: &str) -> Result<()> {
    let cgroups = traces::cgroups(container);
    let runs = |server: &&String| {
        let mut here = cgroups.iter().filter(|path| path.to_string_lossy().contains(&***server));
        here.any(|path| fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|pids| !pids.trim().is_empty()))
    };
    let running = servers.iter().filter(runs).count();
    ensure!(running <= 1, "the container runs on both servers");
    Ok(())
}

/// A container on the first server that writes.
pub(crate) async fn container(cluster: &Cluster, api: &Api, project: &str, name: &str) -> Result<String> {
    container_of(cluster, api, project, name, 256).await
}

/// With so much disk.
pub(crate) async fn container_of(
    cluster: &Cluster,
    api: &Api,
    project: &str,
    name: &str,
    storage_mb: u64,
) -> Result<String> {
    let specs = json!({ "cpu_cores": 0.2, "storage_mb": storage_mb, "memory_mb": 64 });
    let body = json!({ "name": name, "server_id": cluster.servers[0].id, "specs": specs });
    let id = api.container(project, "busybox", body).await?;
    let root = cluster.servers[0].pool().join("containers").join(&id);
    fs::create_dir_all(root.join("srv"))?;
    // `/sbin` is `/bin`.
    fs::write(root.join("bin/init"), WRITER)?;
    fs::set_permissions(root.join("bin/init"), fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    Ok(id)
}
