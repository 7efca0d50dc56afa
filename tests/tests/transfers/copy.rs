//! A container of one server becomes one of another.

use crate::{World, content};
use anyhow::{Result, ensure};
use hoody_tests::{deaths, probe, wait};
use nix::libc;
use serde_json::json;
use std::{fs, io::Write, process::Command};

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_another_server_has_everything_and_lives_on_its_own() -> Result<()> {
    let world = World::new().await?;
    fs::write(world.root(0, &world.source).join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    let rule = json!({ "action": "drop", "protocol": "tcp", "port": 8000, "description": "closed" });
    world.post(&world.source, "firewall/ingress", rule).await?.data()?;
    world.post(&world.source, "snapshots", json!({ "name": "before" })).await?.data()?;
    fs::write(world.data(0, &world.source).join("state"), "two")?;

    let copy = world.copy("away").await?;
    let row = world.get(&copy, "").await?;
    ensure!(row["source_container_id"] == world.source.as_str() && row["kvm"] == false, "{row}");
    ensure!(row["server_id"] == world.cluster.servers[1].id.as_str() && row["transfer"].is_null(), "{row}");
    content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
    ensure!(fs::read(world.root(1, &copy).join("etc/machine-id"))?.is_empty(), "it has its origin's identity");
    let source_server = &world.cluster.servers[0];
    let (address, own) =
        (probe::address(source_server, &world.source)?, probe::address(&world.cluster.servers[1], &copy)?);
    ensure!(address != own, "{address}");
    let rules = world.get(&copy, "/firewall/rules").await?.to_string();
    ensure!(rules.contains("8000"), "{rules}");

    // As it was in a snapshot, while its origin is stopped.
    world.api.operate(&world.source, "stop").await?;
    let body = json!({ "name": "earlier", "target_server_id": world.cluster.servers[1].id, "source_snapshot": "before",
        "copy_firewall_rules": false });
    let earlier = world.post(&world.source, "copy", body).await?.data()?;
    let earlier = earlier["id"].as_str().unwrap().to_owned();
    world.running(&earlier).await?;
    ensure!(fs::read_to_string(world.data(1, &earlier).join("state"))? == "one");
    ensure!(!world.get(&earlier, "/firewall/rules").await?.to_string().contains("8000"));

    // A copy of the copy, back to the first server.
    let body = json!({ "name": "back", "target_server_id": world.cluster.servers[0].id });
    let back = world.post(&copy, "copy", body).await?.data()?["id"].as_str().unwrap().to_owned();
    world.running(&back).await?;
    content::same(&world.data(1, &copy), &world.data(0, &back))?;

    // Nobody shares anything: what one of them loses, the others keep.
    world.delete(0, &world.source.clone()).await?;
    content::same(&world.data(1, &copy), &world.data(0, &back))?;
    world.delete(1, &copy).await?;
    world.delete(1, &earlier).await?;
    world.delete(0, &back).await?;
    for server in 0..2 {
        ensure!(world.kept(server)?.is_empty(), "{:?}", world.kept(server)?);
    }
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_waits_for_its_source_and_says_so_and_can_be_deleted_meanwhile() -> Result<()> {
    let mut world = World::new().await?;
    world.cluster.servers[0].stop_agent()?;
    world.cluster.wait_online(&world.cluster.servers[0], false).await?;
    let (one, other) = (world.begin_copy("one").await?, world.begin_copy("other").await?);
    let seen = world.get(&one, "?runtime=true").await?;
    ensure!(seen["transfer"]["purpose"] == "copy" && seen["transfer"]["state"] == "waiting", "{seen}");
    ensure!(seen["runtime_info"]["transfer"]["source_container_id"] == world.source.as_str(), "{seen}");
    // While it waits.
    world.delete(1, &one).await?;
    world.cluster.servers[0].start()?;
    deaths::linked(&world.cluster, 0).await?;
    world.running(&other).await?;
    content::same(&world.data(0, &world.source), &world.data(1, &other))?;

    // Without its source it never comes: it says so, and goes.
    world.cluster.servers[1].stop_agent()?;
    world.cluster.wait_online(&world.cluster.servers[1], false).await?;
    let orphan = world.begin_copy("orphan").await?;
    world.delete(0, &world.source.clone()).await?;
    world.cluster.servers[1].start()?;
    deaths::linked(&world.cluster, 1).await?;
    wait::until("the failure", crate::DEADLINE, async || {
        let row = world.get(&orphan, "").await?;
        Ok((row["status"] == "failed" && row["warnings"].to_string().contains("transfer_source_deleted")).then_some(()))
    })
    .await?;
    world.delete(1, &orphan).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_nothing_of_it_stays() -> Result<()> {
    let world = World::new().await?;
    let room = world.get(&world.source, "").await?["specs"]["storage_mb"].as_u64().unwrap();
    ensure!(room == 512, "{room}");
    // A source that holds more than its copy may is one whose limit was raised on its server alone.
    let copy = world.copy("small").await?;
    let specs = json!({ "specs": { "storage_mb": 16 } });
    world.api.put(&format!("/api/v1/containers/{copy}"), specs).await?.data()?;
    fs::write(world.data(0, &world.source).join("more"), content::noise(160 << 20, 7))?;
    ensure!(world.sync(&copy).await? == "failed");
    let logs = world.get(&copy, "/status-logs?limit=100").await?.to_string();
    ensure!(logs.contains("transfer_too_large"), "{logs}");
    ensure!(!world.data(1, &copy).join("more").exists());
    world.running(&copy).await?;
    Ok(())
}

/// Takes every limit off the pool of a server, as by an operator's hand.
fn unlimit(world: &World, server: usize) -> Result<()> {
    let pool = world.cluster.servers[server].pool();
    let listed = hoody_tests::cluster::run(Command::new("btrfs").args(["qgroup", "show", "--raw"]).arg(pool))?;
    for group in listed.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.contains('/')) {
        for which in [&[][..], &["-e"]] {
            let mut limit = Command::new("btrfs");
            limit.args(["qgroup", "limit"]).args(which).args(["none", group]).arg(pool);
            hoody_tests::cluster::run(&mut limit)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_when_its_limit_has_room_for_it_and_does_not_grow_beyond() -> Result<()> {
    let world = World::new().await?;
    let limited = async |container: &str, mib: u64| {
        let specs = json!({ "specs": { "storage_mb": mib } });
        world.api.put(&format!("/api/v1/containers/{container}"), specs).await?.data()
    };
    // The source comes to hold more than it may, and its copy.
    limited(&world.source, 32).await?;
    unlimit(&world, 0)?;
    fs::write(world.data(0, &world.source).join("more"), content::noise(96 << 20, 7))?;
    let copy = world.begin_copy("small").await?;
    wait::until("the failure", crate::DEADLINE, async || {
        let row = world.get(&copy, "").await?;
        Ok((row["status"] == "failed" && row["warnings"].to_string().contains("transfer_too_large")).then_some(()))
    })
    .await?;
    ensure!(!world.root(1, &copy).exists(), "it is there");
    wait::until("nothing of it is left", crate::DEADLINE, async || Ok(world.kept(1)?.is_empty().then_some(()))).await?;

    limited(&copy, 160).await?;
    world.running(&copy).await?;
    content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
    // What it came with counts: there is room for the rest of the limit, and for no more.
    let mut flood = fs::File::create(world.root(1, &copy).join("flood"))?;
    let mut written = 0;
    let refused = loop {
        let piece = content::noise(4 << 20, written);
        match flood.write_all(&piece).and_then(|()| flood.sync_all()) {
            Ok(()) => written += piece.len() as u64,
            Err(error) => break error,
        }
        ensure!(written < 160 << 20, "it grew beyond its limit");
    };
    ensure!(refused.raw_os_error() == Some(libc::EDQUOT), "{refused}");
    ensure!((32 << 20..=64 << 20).contains(&written), "{written} bytes beside 100 MiB of a limit of 160 MiB");
    world.delete(1, &copy).await
}
