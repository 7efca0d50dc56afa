//! Copies from one server to another, and syncs, over the public API: two real agents with pools of their own, and the
//! control plane between them.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod content;
mod copy;
mod interrupted;
mod sync;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::{Answer, Api},
    cluster::{Cluster, Plan},
    traces, wait,
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// Two servers; a container with content on the first runs.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) api: Api,
    pub(crate) source: String,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        Self::with(Plan::default()).await
    }

    pub(crate) async fn with(plan: Plan) -> Result<Self> {
        let cluster = Cluster::start(Plan { servers: 2, ..plan }).await?;
        let api = cluster.tenant.clone();
        let project = api.project("transfers").await?;
        let specs = json!({ "cpu_cores": 0.2, "storage_mb": 512, "memory_mb": 64 });
        let body = json!({ "name": "web", "autostart": true, "server_id": cluster.servers[0].id, "specs": specs });
        let source = api.container(&project, "busybox", body).await?;
        let this = Self { cluster, api, source };
        content::fill(&this.data(0, &this.source))?;
        Ok(this)
    }

    /// Where a container's root file system is on the server's pool.
    pub(crate) fn root(&self, server: usize, container: &str) -> PathBuf {
        self.cluster.servers[server].pool().join("containers").join(container)
    }

    /// What is compared of it.
    pub(crate) fn data(&self, server: usize, container: &str) -> PathBuf {
        self.root(server, container).join("srv/data")
    }

    pub(crate) async fn post(&self, container: &str, what: &str, body: Value) -> Result<Answer> {
        self.api.post(&format!("/api/v1/containers/{container}/{what}"), body).await
    }

    pub(crate) async fn get(&self, container: &str, what: &str) -> Result<Value> {
        self.api.get(&format!("/api/v1/containers/{container}{what}")).await?.data()
    }

    /// Begins a copy to the second server; its id.
    pub(crate) async fn begin_copy(&self, name: &str) -> Result<String> {
        let body = json!({ "name": name, "target_server_id": self.cluster.servers[1].id });
        let copied = self.post(&self.source, "copy", body).await?.data()?;
        ensure!(copied["status"] == "copying", "not answered at once: {copied}");
        Ok(copied["id"].as_str().context("an id")?.to_owned())
    }

    /// A copy on the second server, which runs.
    pub(crate) async fn copy(&self, name: &str) -> Result<String> {
        let id = self.begin_copy(name).await?;
        self.running(&id).await?;
        Ok(id)
    }

    pub(crate) async fn running(&self, container: &str) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait::until("the copy runs", DEADLINE, async || {
            last = self.get(container, "").await?;
            Ok((last["status"] == "running").then(|| last.clone()))
        });
        found.await.with_context(|| format!("last seen: {last}"))
    }

    /// Begins a sync, and waits for its end: `succeeded` or `failed`.
    pub(crate) async fn sync(&self, container: &str) -> Result<String> {
        let before = self.ends(container).await?.len();
        self.post(container, "sync", json!({})).await?.data()?;
        self.synced(container, before).await
    }

    /// The end of the sync after so many.
    pub(crate) async fn synced(&self, container: &str, before: usize) -> Result<String> {
        let end =
            wait::until("the end of the sync", DEADLINE, async || Ok(self.ends(container).await?.get(before).cloned()));
        end.await
    }

    /// How the container's syncs ended, in order.
    pub(crate) async fn ends(&self, container: &str) -> Result<Vec<String>> {
        let logs = self.get(container, "/status-logs?limit=100&sort_order=asc").await?;
        let logs = logs["logs"].as_array().or(logs["status_logs"].as_array()).context("logs")?;
        let words = logs.iter().filter_map(|log| log["metadata"]["sync"].as_str());
        Ok(words.filter(|word| *word != "started").map(str::to_owned).collect())
    }

    /// Deletes a container and checks that nothing of it is left on the server.
    pub(crate) async fn delete(&self, server: usize, container: &str) -> Result<()> {
        self.api.delete(&format!("/api/v1/containers/{container}"), None).await?.data()?;
        wait::until("the deletion", DEADLINE, async || {
            let gone = self.api.get(&format!("/api/v1/containers/{container}")).await?.status == 404;
            Ok(gone.then_some(()))
        })
        .await?;
        let left = traces::of_container(&self.cluster.servers[server], container)?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    }

    /// Bytes of the transfers that arrived, in order.
    pub(crate) fn arrived(&self) -> Result<Vec<u64>> {
        let log = std::fs::read_to_string(self.cluster.control_plane.log())?;
        let lines = log.lines().filter(|line| line.contains("a transfer arrived"));
        let bytes = |line: &str| line.split("bytes=").nth(1)?.split_whitespace().next()?.parse().ok();
        lines.map(|line| bytes(line).with_context(|| format!("no bytes: {line}"))).collect()
    }

    /// What the server keeps of transfers.
    pub(crate) fn kept(&self, server: usize) -> Result<Vec<String>> {
        let mut kept = Vec::new();
        for container in std::fs::read_dir(self.cluster.servers[server].pool().join("transfers"))? {
            for transfer in std::fs::read_dir(container?.path())? {
                kept.push(transfer?.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(kept)
    }
}
