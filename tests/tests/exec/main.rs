//! Processes, terminals and logs of containers, over the public API, with the real agent, runc and conmon.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod client;
mod ends;
mod logs;
mod once;
mod refusals;
mod rights;
mod terminal;

use anyhow::Result;
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan},
};
use serde_json::json;

/// A cluster with a running container of its tenant.
struct World {
    cluster: Cluster,
    api: Api,
    project: String,
    container: String,
}

impl World {
    async fn new() -> Result<Self> {
        Self::with(Plan::default()).await
    }

    async fn with(plan: Plan) -> Result<Self> {
        let cluster = Cluster::start(plan).await?;
        let api = cluster.tenant.clone();
        let project = api.project("exec").await?;
        let container = api.container(&project, "busybox", json!({ "name": "shell" })).await?;
        api.operate(&container, "start").await?;
        api.wait_status(&container, "running").await?;
        Ok(Self { cluster, api, project, container })
    }

    fn path(&self, call: &str) -> String {
        format!("/api/v1/containers/{}/{call}", self.container)
    }
}
