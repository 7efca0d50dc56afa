//! Taking and restoring snapshots through the API, beside LXD on btrfs where it can be made to run, and bare btrfs.

use super::{bare::checked, lxd::Lxd, table};
use crate::measure::Times;
use anyhow::{Context, Result};
use hoody_tests::{api::Api, cluster::Cluster};
use serde_json::json;
use std::{path::Path, process::Command, time::Instant};

const ROUNDS: usize = 30;

pub(super) async fn run(cluster: &Cluster, api: &Api) -> Result<()> {
    let project = api.project("bench-snapshots").await?;
    // Two and a copy fit where there are two processors.
    let specs = json!({ "cpu_cores": 0.5 });
    let running = json!({ "name": "runs", "autostart": true, "specs": specs });
    let running = api.container(&project, "busybox", running).await?;
    let stopped = api.container(&project, "busybox", json!({ "name": "rests", "specs": specs })).await?;
    let lxd = Lxd::start(cluster.folder()).await;
    let pool = cluster.servers[0].pool();
    let mut times: [Times; 8] = Default::default();
    let [take, restore, restore_stopped, copy, bare, lxd_take, lxd_restore, lxd_restore_stopped] = &mut times;
    // Interleaved, so that whatever else the machine does meets all of them alike.
    for round in 0..ROUNDS {
        for (container, restored) in [(&running, &mut *restore), (&stopped, &mut *restore_stopped)] {
            let path = format!("/api/v1/containers/{container}/snapshots");
            let begun = Instant::now();
            api.post(&path, json!({ "name": "round" })).await?.data()?;
            take.push(begun.elapsed());
            let begun = Instant::now();
            api.put(&format!("{path}/round"), json!({})).await?.data()?;
            restored.push(begun.elapsed());
            api.delete(&format!("{path}/round"), None).await?.data()?;
        }
        let begun = Instant::now();
        let copied = api.post(&format!("/api/v1/containers/{stopped}/copy"), json!({})).await?.data()?;
        copy.push(begun.elapsed());
        let id = copied["id"].as_str().context("an id")?;
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
        bare.push(bare_snapshot(pool, &running, round)?);
        if let Ok(lxd) = &lxd {
            lxd_take.push(lxd.timed(&["snapshot", "runs", "round"])?);
            lxd_restore.push(lxd.timed(&["restore", "runs", "round"])?);
            lxd.timed(&["delete", "runs/round"])?;
            lxd_take.push(lxd.timed(&["snapshot", "rests", "round"])?);
            lxd_restore_stopped.push(lxd.timed(&["restore", "rests", "round"])?);
            lxd.timed(&["delete", "rests/round"])?;
        }
    }
    for container in [running, stopped] {
        api.delete(&format!("/api/v1/containers/{container}"), None).await?.data()?;
    }
    table::part(&format!("snapshots of one container, {ROUNDS} rounds"));
    table::head();
    let peer = |peer| lxd.is_ok().then_some(("lxd on btrfs", peer));
    table::times("take, running and stopped", take, peer(&*lxd_take));
    table::times("restore, running again", restore, peer(&*lxd_restore));
    table::times("restore of a stopped container", restore_stopped, peer(&*lxd_restore_stopped));
    table::times("copy, stopped", copy, None);
    table::times("bare btrfs subvolume snapshot", bare, None);
    match &lxd {
        Ok(_) => {
            table::times("lxd: take", lxd_take, None);
            table::times("lxd: restore, running again", lxd_restore, None);
            table::times("lxd: restore of a stopped container", lxd_restore_stopped, None);
        }
        Err(error) => table::value("lxd", &format!("does not run here: {error:#}")),
    }
    Ok(())
}

/// A read-only snapshot beside, by the program.
fn bare_snapshot(pool: &Path, container: &str, round: usize) -> Result<std::time::Duration> {
    let from = pool.join("containers").join(container);
    let to = pool.join(format!("staging/bench-{round}"));
    let begun = Instant::now();
    checked(Command::new("btrfs").args(["-q", "subvolume", "snapshot", "-r"]).arg(from).arg(&to))?;
    let taken = begun.elapsed();
    checked(Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(&to))?;
    Ok(taken)
}
