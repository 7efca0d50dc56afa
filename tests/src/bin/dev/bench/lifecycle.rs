//! Create, start, stop, delete and a firewall rule, through the API, beside runc and podman.

use super::{
    bare::{Bare, Podman},
    docker::Docker,
    steps::Steps,
    table,
};
use crate::measure::Times;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::{Answer, Api},
    cluster::Cluster,
};
use serde_json::json;
use std::time::{Duration, Instant};

const ROUNDS: usize = 30;

pub(super) async fn run(cluster: &Cluster, api: &Api) -> Result<()> {
    let project = api.project("bench").await?;
    let first = api.container(&project, "busybox", json!({ "name": "first", "autostart": true })).await?;
    let bare = Bare::prepare(cluster, &first)?;
    let podman = Podman::prepare(cluster.folder())?;
    let docker = Docker::start(cluster.folder()).await?;
    let mut steps = Steps::of(cluster);
    let mut times: [Times; 9] = Default::default();
    let [create, start, stop, delete, rule, runc, unfiltered, podmans, dockers] = &mut times;
    // Interleaved, so that whatever else the machine does meets all of them alike.
    for round in 0..ROUNDS {
        steps.begin()?;
        let begun = Instant::now();
        let body = json!({ "container_image": "busybox", "name": format!("round-{round}"), "autostart": true });
        let made = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
        create.push(begun.elapsed());
        steps.end()?;
        ensure!(made["status"] == "running", "the container is not running when the API answers: {made}");
        let id = made["id"].as_str().context("an id")?.to_owned();
        let path = format!("/api/v1/containers/{id}");
        let drop_http = json!({ "action": "drop", "protocol": "tcp", "port": 80, "description": "" });
        rule.push(timed(api.post(&format!("{path}/firewall/ingress"), drop_http)).await?);
        stop.push(timed(api.post(&format!("{path}/force-stop"), json!({}))).await?);
        start.push(timed(api.post(&format!("{path}/start"), json!({}))).await?);
        delete.push(timed(api.delete(&path, None)).await?);
        runc.push(bare.run("config.json", round)?);
        unfiltered.push(bare.run("without-seccomp.json", round)?);
        if let Some(podman) = &podman {
            podmans.push(podman.run(round)?);
        }
        if let Some(docker) = &docker {
            dockers.push(docker.run(round)?);
        }
    }
    api.delete(&format!("/api/v1/containers/{first}"), None).await?.data()?;
    table::part(&format!("one container, image on the node, {ROUNDS} rounds"));
    table::head();
    let peer = Some(("bare runc run", &*runc));
    table::times("create and start, until running", create, peer);
    table::times("start of a stopped container, until running", start, peer);
    table::times("stop by force, until stopped", stop, None);
    table::times("delete", delete, None);
    table::times("firewall rule added, until in force", rule, None);
    table::times("bare runc run, same configuration", runc, None);
    table::times("bare runc run, without seccomp", unfiltered, None);
    for (name, there, times) in [("podman", podman.is_some(), &*podmans), ("docker", docker.is_some(), &*dockers)] {
        if there {
            table::times(&format!("{name} run -d, runc, no network"), times, peer);
            let share = create.percentile(50.0) / times.percentile(50.0);
            table::value(&format!("create and start / {name} run -d"), &format!("{share:.2}"));
        } else {
            table::value(&format!("{name} run -d"), "not installed");
        }
    }
    steps.print("create and start");
    Ok(())
}

async fn timed(request: impl Future<Output = Result<Answer>>) -> Result<Duration> {
    let begun = Instant::now();
    request.await?.data()?;
    Ok(begun.elapsed())
}
