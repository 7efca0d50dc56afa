//! A copy between two servers, each linked to another control plane: the one that has the source's link is killed at each
//! of the points of what it passes on, and each of the two in the middle of the stream. Each time the copy comes to be what
//! its origin is.

use super::DEADLINE;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Database, Plan, TENANT},
    deaths,
    faults::Faults,
    postgres::FreshDatabase,
    wait,
};
use nix::libc::SIGKILL;
use serde_json::json;
use std::{fs, io::Read, path::PathBuf};

/// What takes long enough to be broken in the middle.
const BYTES: u64 = 200 << 20;

/// Which of the two control planes is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plane {
    OfSource,
    OfTarget,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_between_servers_of_two_control_planes_survives_the_death_of_either() -> Result<()> {
    let database = FreshDatabase::create()?;
    let plan =
        Plan { servers: 2, database: Database::Postgres(database.url()), replicas: 1, spread: true, ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = copies(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())?;
    drop(cluster);
    Ok(())
}

async fn copies(cluster: &mut Cluster) -> Result<()> {
    let faults = Faults::new()?;
    faults.disarm()?;
    cluster.control_plane.environment.push(faults.environment());
    cluster.control_plane.stop()?;
    cluster.control_plane.start().await?;
    deaths::linked(cluster, 0).await?;
    let planes = [cluster.control_plane.base_url(), cluster.replicas[0].base_url()];
    let mut apis = Vec::new();
    for plane in planes {
        apis.push(Api::login(plane, TENANT, &cluster.password).await?);
    }
    let [of_source, of_target] = [&apis[0], &apis[1]];
    let project = of_target.project("interrupted").await?;
    let body = json!({ "name": "origin", "server_id": cluster.servers[0].id,
        "specs": { "cpu_cores": 0.2, "storage_mb": 512, "memory_mb": 64 } });
    let origin = of_target.container(&project, "busybox", body).await?;
    let bulk = bulk(cluster, 0, &origin);
    std::io::copy(&mut fs::File::open("/dev/urandom")?.take(BYTES), &mut fs::File::create(&bulk)?)?;
    let sent = fs::read(&bulk)?;

    for point in hoody_fault::CONTROL_PLANE_RELAYS {
        faults.arm(point)?;
        let copy = begin(cluster, of_target, &origin).await?;
        wait::until("the death at the point", DEADLINE, async || {
            let Some(signal) = cluster.control_plane.process()?.killed()? else { return Ok(None) };
            ensure!(signal == SIGKILL, "ended by signal {signal}");
            Ok(Some(()))
        })
        .await
        .with_context(|| *point)?;
        faults.disarm()?;
        cluster.control_plane.start().await?;
        arrived(cluster, of_target, &copy, &sent).await.with_context(|| *point)?;
    }
    for plane in [Plane::OfSource, Plane::OfTarget] {
        let survivor = if plane == Plane::OfSource { of_target } else { of_source };
        let copy = begin(cluster, survivor, &origin).await?;
        wait::until("some of the stream", DEADLINE, async || {
            let row = survivor.get(&format!("/api/v1/containers/{copy}?runtime=true")).await?.data()?;
            ensure!(row["status"] == "copying", "it was made before it could be broken: {row}");
            Ok(row["runtime_info"]["transfer"]["bytes_done"].as_u64().is_some_and(|bytes| bytes > 0).then_some(()))
        })
        .await?;
        let killed = if plane == Plane::OfSource { &mut cluster.control_plane } else { &mut cluster.replicas[0] };
        killed.kill()?;
        killed.start().await?;
        arrived(cluster, survivor, &copy, &sent).await.with_context(|| format!("{plane:?}"))?;
    }
    Ok(())
}

async fn begin(cluster: &Cluster, api: &Api, origin: &str) -> Result<String> {
    let body = json!({ "name": "copy", "target_server_id": cluster.servers[1].id });
    let copied = api.post(&format!("/api/v1/containers/{origin}/copy"), body).await?.data()?;
    Ok(copied["id"].as_str().context("an id")?.to_owned())
}

/// Waits until the copy is there, compares what it has, and deletes it.
async fn arrived(cluster: &Cluster, api: &Api, copy: &str, sent: &[u8]) -> Result<()> {
    api.wait_status(copy, "stopped").await?;
    let path = bulk(cluster, 1, copy);
    ensure!(fs::read(&path)? == sent, "{} differs", path.display());
    api.delete(&format!("/api/v1/containers/{copy}"), None).await?.data()?;
    wait::until("the copy is deleted", DEADLINE, async || Ok((!path.exists()).then_some(()))).await
}

fn bulk(cluster: &Cluster, server: usize, container: &str) -> PathBuf {
    cluster.servers[server].pool().join("containers").join(container).join("bulk")
}
