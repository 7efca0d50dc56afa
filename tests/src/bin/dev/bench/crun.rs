//! Create and start with crun as the agents' runtime, beside bare `runc run` and `crun run`, in a cluster of its own.

use super::{bare::Bare, steps, table};
use crate::measure::Times;
use anyhow::{Context, Result};
use hoody_tests::cluster::{Cluster, Plan};
use serde_json::json;
use std::{path::Path, process::Command, time::Instant};

const PROGRAM: &str = "/usr/bin/crun";
const ROUNDS: usize = 30;

pub(super) async fn run() -> Result<()> {
    if !Path::new(PROGRAM).exists() {
        table::value("crun", "not installed");
        return Ok(());
    }
    if Path::new("/sys/fs/cgroup/memory").exists() {
        table::value("crun", "needs cgroup v2 alone: see docs/node-agent.md");
        return Ok(());
    }
    let settings = format!("runtime = {PROGRAM:?}");
    let cluster = Cluster::start(Plan { agent_settings: settings, ..steps::plan() }).await?;
    let api = cluster.tenant.unchecked();
    let project = api.project("crun").await?;
    let body = json!({ "container_image": "busybox", "name": "first", "autostart": true });
    let first = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
    if first["status"] != "running" {
        table::value("crun", "refuses this machine: see docs/performance.md");
        return Ok(());
    }
    let bare = Bare::prepare(&cluster, first["id"].as_str().context("an id")?)?;
    let mut steps = steps::Steps::of(&cluster);
    let mut times: [Times; 3] = Default::default();
    let [create, runc, crun] = &mut times;
    for round in 0..ROUNDS {
        steps.begin()?;
        let begun = Instant::now();
        let body = json!({ "container_image": "busybox", "name": format!("round-{round}"), "autostart": true });
        let made = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
        create.push(begun.elapsed());
        steps.end()?;
        api.delete(&format!("/api/v1/containers/{}", made["id"].as_str().context("an id")?), None).await?.data()?;
        runc.push(bare.run("config.json", round)?);
        crun.push(bare.run_with(Command::new(PROGRAM), "config.json", round)?);
    }
    table::part(&format!("with crun as the agent's runtime, {ROUNDS} rounds"));
    table::head();
    table::times("create and start, until running", create, Some(("bare runc run", runc)));
    table::times("bare runc run, same configuration", runc, None);
    table::times("bare crun run, same configuration", crun, Some(("bare runc run", runc)));
    steps.print("create and start with crun");
    Ok(())
}
