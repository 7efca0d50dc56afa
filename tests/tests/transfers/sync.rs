//! A copy becomes what its origin is now, by as little as that takes.

use crate::{World, content};
use anyhow::{Context, Result, ensure};
use hoody_tests::deaths;
use serde_json::{Value, json};
use std::{fs, process::Command};

async fn snapshots(world: &World, container: &str) -> Result<Vec<Value>> {
    let listed = world.get(container, "/snapshots").await?;
    Ok(listed["snapshots"].as_array().context("snapshots")?.clone())
}

/// What is kept for transfers of the container goes, as by an operator's hand.
fn lose(world: &World, server: usize, container: &str) -> Result<()> {
    let folder = world.cluster.servers[server].pool().join("transfers").join(container);
    for kept in fs::read_dir(&folder)? {
        hoody_tests::cluster::run(Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(kept?.path()))?;
    }
    Ok(())
}

/// Changes a little of the source.
fn change(world: &World, word: &str) -> Result<()> {
    let data = world.data(0, &world.source);
    fs::write(data.join("state"), word)?;
    fs::write(data.join("small"), content::noise(64 << 10, word.len() as u64))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_sends_the_difference_and_keeps_what_the_copy_had() -> Result<()> {
    let world = World::new().await?;
    let copy = world.copy("staging").await?;
    let identity = "fedcba9876543210fedcba9876543210\n";
    fs::write(world.root(0, &world.source).join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    fs::write(world.root(1, &copy).join("etc/machine-id"), identity)?;
    fs::write(world.data(1, &copy).join("mine"), "of the copy alone")?;
    change(&world, "changed")?;
    ensure!(world.sync(&copy).await? == "succeeded");
    world.running(&copy).await?;
    content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
    ensure!(fs::read_to_string(world.root(1, &copy).join("etc/machine-id"))? == identity, "it lost its identity");
    let arrived = world.arrived()?;
    println!("a copy took {} bytes, the sync of a little {}", arrived[0], arrived[1]);
    ensure!(arrived[1] > 64 << 10 && arrived[1] * 8 < arrived[0], "{arrived:?}");

    // What the copy had of its own is in a snapshot, of which there is one.
    let kept = snapshots(&world, &copy).await?;
    let name = kept[0]["name"].as_str().context("a name")?;
    ensure!(kept.len() == 1 && name.starts_with("before-sync-"), "{kept:?}");
    world.api.put(&format!("/api/v1/containers/{copy}/snapshots/{name}"), json!({})).await?.data()?;
    ensure!(fs::read_to_string(world.data(1, &copy).join("mine"))? == "of the copy alone");

    // A stopped copy is not started.
    world.api.operate(&copy, "stop").await?;
    change(&world, "again and again")?;
    ensure!(world.sync(&copy).await? == "succeeded");
    content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
    ensure!(world.get(&copy, "").await?["status"] == "stopped");

    // It has not been changed since; then it is.
    let refuse = "sync?if_diverged=refuse";
    let before = world.ends(&copy).await?.len();
    world.post(&copy, refuse, json!({})).await?.data()?;
    ensure!(world.synced(&copy, before).await? == "succeeded");
    world.api.operate(&copy, "start").await?;
    world.running(&copy).await?;
    let before = world.ends(&copy).await?.len();
    world.post(&copy, refuse, json!({})).await?.data()?;
    ensure!(world.synced(&copy, before).await? == "succeeded");
    fs::write(world.data(1, &copy).join("mine"), "again")?;
    world.post(&copy, refuse, json!({})).await?.expect_refusal(409, "CONFLICT")?;
    ensure!(world.data(1, &copy).join("mine").exists());
    world.delete(1, &copy).await?;
    world.delete(0, &world.source.clone()).await?;
    for server in 0..2 {
        ensure!(world.kept(server)?.is_empty(), "{:?}", world.kept(server)?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_of_what_both_had_a_sync_brings_all_of_it() -> Result<()> {
    let mut world = World::new().await?;
    let copy = world.copy("first").await?;
    // On the source, on the target, on both.
    for (round, lost) in [vec![0], vec![1], vec![0, 1]].into_iter().enumerate() {
        for server in lost {
            lose(&world, server, if server == 0 { &world.source } else { &copy })?;
        }
        change(&world, &"x".repeat(round + 1))?;
        ensure!(world.sync(&copy).await? == "succeeded", "round {round}");
        content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
        let arrived = world.arrived()?;
        ensure!(arrived.last() > Some(&(4 << 20)), "{arrived:?} in round {round}");
    }
    // A chain: the copy's copy follows the copy, however often that was synced meanwhile.
    let body = json!({ "name": "second", "target_server_id": world.cluster.servers[0].id });
    let second = world.post(&copy, "copy", body).await?.data()?["id"].as_str().context("an id")?.to_owned();
    world.running(&second).await?;
    for word in ["one more", "and one more"] {
        change(&world, word)?;
        ensure!(world.sync(&copy).await? == "succeeded");
    }
    ensure!(world.sync(&second).await? == "succeeded");
    content::same(&world.data(0, &world.source), &world.data(0, &second))?;
    // The other side of the chain still has what it needs.
    change(&world, "the last one")?;
    ensure!(world.sync(&copy).await? == "succeeded");
    let arrived = world.arrived()?;
    ensure!(arrived.last() < Some(&(1 << 20)), "{arrived:?}");

    // A server that is away is not waited for, and what was is as it was when it is back.
    world.cluster.servers[0].stop_agent()?;
    world.cluster.wait_online(&world.cluster.servers[0], false).await?;
    world.post(&copy, "sync", json!({})).await?.expect(503)?;
    world.cluster.servers[0].start()?;
    deaths::linked(&world.cluster, 0).await?;
    change(&world, "back")?;
    ensure!(world.sync(&copy).await? == "succeeded");
    content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_the_same_server_is_synced_too_and_a_sync_that_does_not_start_changes_nothing() -> Result<()> {
    let world = World::new().await?;
    let copied = world.post(&world.source, "copy", json!({ "name": "beside" })).await?.data()?;
    let copy = copied["id"].as_str().context("an id")?.to_owned();
    world.running(&copy).await?;
    // It was made and started, and nobody has changed it; then somebody does.
    world.post(&copy, "sync?if_diverged=refuse", json!({})).await?.data()?;
    ensure!(world.synced(&copy, 0).await? == "succeeded");
    fs::write(world.data(0, &copy).join("mine"), "of the copy alone")?;
    world.post(&copy, "sync?if_diverged=refuse", json!({})).await?.expect_refusal(409, "CONFLICT")?;
    change(&world, "changed")?;
    ensure!(world.sync(&copy).await? == "succeeded");
    content::same(&world.data(0, &world.source), &world.data(0, &copy))?;
    ensure!(world.arrived()?.is_empty(), "it went over the wire");
    world.post(&copy, "sync?if_diverged=refuse", json!({})).await?.data()?;
    ensure!(world.synced(&copy, 2).await? == "succeeded");

    // One of a snapshot is compared with that, however its origin has changed since.
    world.post(&world.source, "snapshots", json!({ "name": "then" })).await?.data()?;
    change(&world, "since then")?;
    let of_then = json!({ "name": "of-then", "source_snapshot": "then" });
    let then = world.post(&world.source, "copy", of_then).await?.data()?["id"].as_str().context("an id")?.to_owned();
    world.running(&then).await?;
    fs::remove_file(world.data(0, &then).join("small"))?;
    world.post(&then, "sync?if_diverged=refuse", json!({})).await?.expect_refusal(409, "CONFLICT")?;
    world.delete(0, &then).await?;

    // Nothing can be mounted at /proc of what the origin has become.
    let root = world.root(0, &world.source);
    fs::rename(root.join("proc"), root.join("proc-aside"))?;
    std::os::unix::fs::symlink("/nowhere", root.join("proc"))?;
    fs::write(world.data(0, &copy).join("mine"), "still")?;
    ensure!(world.sync(&copy).await? == "failed");
    world.running(&copy).await?;
    ensure!(fs::read_to_string(world.data(0, &copy).join("mine"))? == "still");
    let logs = world.get(&copy, "/status-logs?limit=100").await?.to_string();
    ensure!(logs.contains("sync_failed"), "{logs}");
    world.post(&world.source, "sync", json!({})).await?.expect_refusal(409, "CONFLICT")?;
    world.delete(0, &copy).await
}
