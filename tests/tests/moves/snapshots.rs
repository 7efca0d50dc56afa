//! Snapshots move with their container: each is what it was, they share what they have in common, and what becomes of one
//! while its container is copied becomes of it on both servers.

use crate::{DEADLINE, World, container_of, content};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    deaths::{self, Deaths, Victim},
    wait,
};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Data that all snapshots have in common.
const COMMON: usize = 24 << 20;

/// Says in each snapshot what that one is called.
const STATE: &str = "srv/data/state";

/// What is in a folder, byte by byte.
type Tree = BTreeMap<PathBuf, String>;

/// A container whose three snapshots differ, and what each has.
async fn three(world: &World) -> Result<Vec<(&'static str, Tree)>> {
    let id = &world.writer;
    let data = world.root(0, id).join("srv/data");
    fs::create_dir_all(&data)?;
    content::fill(&data)?;
    fs::write(data.join("common"), content::noise(COMMON, 7))?;
    fs::write(data.join("only the oldest"), "has this")?;
    let mut taken = Vec::new();
    for state in ["one", "two", "three"] {
        fs::write(data.join("state"), state)?;
        world.take(id, state).await?;
        taken.push((state, content::tree(&data)?));
        if state == "one" {
            fs::remove_file(data.join("only the oldest"))?;
            fs::rename(data.join("deep"), data.join("renamed"))?;
        }
    }
    fs::write(data.join("state"), "now")?;
    Ok(taken)
}

/// Fails where the snapshots on the server are not these.
async fn check(world: &World, server: usize, expected: &[(&'static str, Tree)]) -> Result<()> {
    let held = world.snapshots(server, &world.writer, STATE).await?;
    ensure!(held.len() == expected.len(), "{held:?}");
    for (name, tree) in expected {
        let folder = held.get(*name).with_context(|| format!("{name} is missing: {held:?}"))?;
        ensure!(content::tree(&folder.join("srv/data"))? == *tree, "{name} is another one");
    }
    Ok(())
}

/// Bytes that the server's pool has in use.
fn used(cluster: &Cluster, server: usize) -> Result<u64> {
    let pool = cluster.servers[server].pool();
    nix::unistd::syncfs(fs::File::open(pool)?)?;
    let found = statvfs(pool)?;
    Ok((found.blocks() - found.blocks_free()) * found.fragment_size())
}

async fn restore(world: &World, name: &str) -> Result<Value> {
    world.api.put(&format!("/api/v1/containers/{}/snapshots/{name}", world.writer), json!({})).await?.data()
}

async fn delete(world: &World, name: &str) -> Result<Value> {
    world.api.delete(&format!("/api/v1/containers/{}/snapshots/{name}", world.writer), None).await?.data()
}

async fn killed(world: &mut World, victim: Victim) -> Result<()> {
    let killed = async || Ok(deaths::process(&mut world.cluster, victim)?.killed()?.map(drop));
    wait::until("the death", DEADLINE, killed).await
}

/// Deletes a subvolume behind the agent's back.
fn lose(path: &Path) -> Result<()> {
    let done = Command::new("btrfs").args(["subvolume", "delete"]).arg(path).output()?;
    ensure!(done.status.success(), "{done:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_arrive_as_they_were_and_take_what_they_share_once() -> Result<()> {
    let world = World::with(Plan::default()).await?;
    let id = world.writer.clone();
    let taken = three(&world).await?;
    check(&world, 0, &taken).await?;
    let listed = world.get(&id, "/snapshots").await?;
    let before = used(&world.cluster, 1)?;
    world.begin(&id, 1).await?.data()?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "done", "{ended}");
    world.writes(&id, 1).await?;
    check(&world, 1, &taken).await?;
    ensure!(world.get(&id, "/snapshots").await? == listed, "they are other snapshots: {listed}");
    let (sent, took) = (ended["bytes"].as_u64().context("bytes")?, used(&world.cluster, 1)? - before);
    println!("{} MiB sent, {} MiB taken, {} MiB in common", sent >> 20, took >> 20, COMMON >> 20);
    ensure!(sent < COMMON as u64 * 3 / 2 && took < COMMON as u64 * 2, "{sent} bytes were sent, {took} taken");

    // Restored, copied from and deleted there like before.
    for (name, folder) in &world.snapshots(1, &id, STATE).await? {
        restore(&world, name).await?;
        world.api.wait_status(&id, "running").await?;
        content::same(&folder.join("srv/data"), &world.root(1, &id).join("srv/data")).with_context(|| name.clone())?;
    }
    let copy = json!({ "name": "copy", "source_snapshot": "two it" });
    let copy = world.api.post(&format!("/api/v1/containers/{id}/copy"), copy).await?.data()?;
    let copy = copy["id"].as_str().context("an id")?;
    wait::until("the copy", DEADLINE, async || Ok((world.get(copy, "").await?["status"] == "stopped").then_some(())))
        .await?;
    ensure!(content::tree(&world.root(1, copy).join("srv/data"))? == taken[1].1);
    delete(&world, "two").await?;
    let left = [taken[0].clone(), taken[2].clone()];
    check(&world, 1, &left).await?;
    // And on: restored to the oldest, back to where it came from, which has deleted what it held.
    world.begin(&id, 0).await?.data()?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "done", "{ended}");
    world.writes(&id, 0).await?;
    check(&world, 0, &left).await?;
    world.api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    for server in 0..2 {
        wait::until("nothing of it", DEADLINE, async || Ok(world.left(server, &id)?.is_empty().then_some(()))).await?;
    }
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_snapshots_meanwhile_becomes_of_them_on_the_new_server() -> Result<()> {
    let mut world = World::with(Plan::default()).await?;
    let deaths = Deaths::new(&mut world.cluster).await?;
    let id = world.writer.clone();
    let taken = three(&world).await?;
    // What cannot move any more stays with all that it had, and nothing of it is anywhere else.
    world.begin(&id, 1).await?.data()?;
    world.cluster.servers[1].kill_agent()?;
    ensure!(world.get(&id, "/move").await?["state"] == "copying");
    world.api.operate(&id, "pause").await?;
    world.cluster.servers[1].start()?;
    deaths::linked(&world.cluster, 1).await?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "failed" && ended["cause"]["code"] == "paused", "{ended}");
    world.api.operate(&id, "resume").await?;
    world.writes(&id, 0).await?;
    check(&world, 0, &taken).await?;

    // The oldest is to be sent, and nobody has begun to.
    deaths.arm(Victim::ControlPlane, "move.committed")?;
    ensure!(world.begin(&id, 1).await.is_err(), "it was answered");
    killed(&mut world, Victim::ControlPlane).await?;
    world.cluster.servers[1].kill_agent()?;
    world.cluster.control_plane.start().await?;
    deaths::linked(&world.cluster, 0).await?;
    ensure!(world.get(&id, "/move").await?["state"] == "copying");
    delete(&world, "one").await?;
    restore(&world, "two").await?;
    ensure!(fs::read_to_string(world.root(0, &id).join(STATE))? == "two");
    fs::write(world.root(0, &id).join(STATE), "late")?;
    world.take(&id, "late").await?;
    let alias = json!({ "alias": "renamed" });
    world.api.patch(&format!("/api/v1/containers/{id}/snapshots/three/alias"), alias).await?.data()?;
    let late = content::tree(&world.root(0, &id).join("srv/data"))?;
    world.cluster.servers[1].start()?;
    deaths::linked(&world.cluster, 1).await?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "done", "{ended}");
    world.writes(&id, 1).await?;
    check(&world, 1, &[taken[1].clone(), taken[2].clone(), ("late", late.clone())]).await?;
    ensure!(content::tree(&world.root(1, &id).join("srv/data"))? == late, "it is not what was restored");
    ensure!(world.get(&id, "/snapshots").await?["snapshots"][1]["alias"] == "renamed");
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_synced_moves_with_the_snapshot_of_what_it_was() -> Result<()> {
    let world = World::with(Plan::default()).await?;
    let (origin, api) = (world.writer.clone(), &world.api);
    let copy = json!({ "name": "copy", "target_server_id": world.cluster.servers[1].id });
    let copy = api.post(&format!("/api/v1/containers/{origin}/copy"), copy).await?.data()?;
    let copy = copy["id"].as_str().context("an id")?.to_owned();
    let made = async || Ok((world.get(&copy, "").await?["status"] == "stopped").then_some(()));
    wait::until("the copy", DEADLINE, made).await?;
    fs::write(world.root(1, &copy).join("srv/own"), "of the copy")?;
    fs::write(world.root(0, &origin).join("srv/new"), "of the origin")?;
    let sync = async || -> Result<()> {
        let before = world.get(&copy, "/status-logs?limit=100").await?.to_string();
        let ends = |logs: &str| logs.matches("\"sync\":\"succeeded\"").count();
        api.post(&format!("/api/v1/containers/{copy}/sync"), json!({})).await?.data()?;
        wait::until("the sync", DEADLINE, async || {
            let now = world.get(&copy, "/status-logs?limit=100").await?.to_string();
            Ok((ends(&now) > ends(&before)).then_some(()))
        })
        .await
    };
    sync().await?;
    let before = world.get(&copy, "/snapshots").await?["snapshots"][0].clone();
    ensure!(before["name"].as_str().is_some_and(|name| name.starts_with("before-sync-")), "{before}");
    // To the server that its origin is on.
    world.begin(&copy, 0).await?.data()?;
    let ended = world.ended(&copy).await?;
    ensure!(ended["state"] == "done", "{ended}");
    let after = world.get(&copy, "/snapshots").await?["snapshots"][0].clone();
    ensure!(after == before, "{after}");
    ensure!(world.snapshots(0, &copy, "srv/own").await?.contains_key("of the copy"));
    ensure!(fs::read_to_string(world.root(0, &copy).join("srv/new"))? == "of the origin");
    // The next sync's snapshot takes the place of that one, which expires: it goes here, there, or while it moves back.
    fs::write(world.root(0, &copy).join("srv/own"), "of the copy again")?;
    sync().await?;
    wait::until("what it left is gone", DEADLINE, async || Ok(world.left(1, &copy)?.is_empty().then_some(()))).await?;
    world.begin(&copy, 1).await?.data()?;
    let ended = world.ended(&copy).await?;
    ensure!(ended["state"] == "done", "{ended}");
    wait::until("the snapshots there are", DEADLINE, async || {
        Ok(world
            .snapshots(1, &copy, "srv/own")
            .await
            .is_ok_and(|held| held.contains_key("of the copy again"))
            .then_some(()))
    })
    .await?;
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_keeps_its_snapshots_until_the_target_holds_each() -> Result<()> {
    let mut world = World::with(Plan::default()).await?;
    let deaths = Deaths::new(&mut world.cluster).await?;
    let id = world.writer.clone();
    let taken = three(&world).await?;
    let target = Victim::Agent(1);
    // Lost before the container is the target's: the move fails. All three have come, and what follows them is received.
    deaths.arm(target, "transfer.staged:4")?;
    world.begin(&id, 1).await?.data()?;
    killed(&mut world, target).await?;
    let received = world.cluster.servers[1].pool().join("transfers").join(&id);
    let received = received.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_oldest = |path: &&PathBuf| fs::read_to_string(path.join(STATE)).is_ok_and(|said| said == "one");
    lose(received.iter().find(is_oldest).context("the oldest")?)?;
    deaths.wait(&mut world.cluster, target).await?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "failed" && ended["cause"]["code"] == "transfer_snapshot_missing", "{ended}");
    world.writes(&id, 0).await?;
    check(&world, 0, &taken).await?;

    // And after that: the source keeps everything.
    deaths.arm(target, "root.received")?;
    world.begin(&id, 1).await?.data()?;
    killed(&mut world, target).await?;
    lose(world.snapshots(1, &id, STATE).await?.get("one").context("the oldest")?)?;
    deaths.wait(&mut world.cluster, target).await?;
    wait::until("the control plane notices", DEADLINE, async || {
        let log = fs::read_to_string(world.cluster.control_plane.log())?;
        Ok(log.contains("is not on the server that its container moved to").then_some(()))
    })
    .await?;
    ensure!(world.get(&id, "/move").await?["state"] == "starting");
    check(&world, 0, &taken).await?;
    // Whoever owns it may do without.
    delete(&world, "one").await?;
    ensure!(world.ended(&id).await?["state"] == "done");
    world.writes(&id, 1).await?;
    check(&world, 1, &taken[1..]).await?;
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_take_more_than_is_reserved_stays_where_it_is() -> Result<()> {
    let world = World::with(Plan::default()).await?;
    let (cluster, api) = (&world.cluster, &world.api);
    // The least disk that there is, and a state that takes most of it.
    let id = container_of(cluster, api, &world.project, "small", 16).await?;
    let large = world.root(0, &id).join("srv/large");
    fs::write(&large, content::noise(9 << 20, 3))?;
    world.take(&id, "large").await?;
    // To and fro: here they share it, and of two that follow each other one has it.
    for round in 0..4 {
        fs::remove_file(&large)?;
        world.take(&id, &format!("small-{round}")).await?;
        api.put(&format!("/api/v1/containers/{id}/snapshots/large"), json!({})).await?.data()?;
        world.take(&id, &format!("large-{round}")).await?;
    }
    let listed = world.get(&id, "/snapshots").await?;
    world.begin(&id, 1).await?.data()?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "failed" && ended["cause"]["code"] == "transfer_too_large", "{ended}");
    world.writes(&id, 0).await?;
    ensure!(world.get(&id, "/snapshots").await? == listed);
    ensure!(cluster.servers[0].pool().join("snapshots").join(&id).read_dir()?.count() == 9);
    // With those that it has room for it moves.
    for round in 0..4 {
        for size in ["small", "large"] {
            api.delete(&format!("/api/v1/containers/{id}/snapshots/{size}-{round}"), None).await?.data()?;
        }
    }
    world.begin(&id, 1).await?.data()?;
    let ended = world.ended(&id).await?;
    ensure!(ended["state"] == "done", "{ended}");
    world.writes(&id, 1).await
}
