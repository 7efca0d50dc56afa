//! RAM disks: whose they are, how long they last, what they count as.

use crate::{World, plan, specs};
use anyhow::{Context, Result, ensure};
use hoody_tests::wait;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_ramdisk_lasts_as_long_as_its_server_runs() -> Result<()> {
    let mut world = World::new(plan()).await?;
    let outcome = disks(&mut world).await;
    outcome.with_context(|| world.cluster.log_tails())
}

async fn with_disk(world: &World, name: &str, more: Value) -> Result<String> {
    let mut body =
        json!({ "name": name, "server_id": world.server().id, "autostart": true, "specs": specs(), "ramdisk": true });
    for (name, value) in more.as_object().context("an object")? {
        body[name] = value.clone();
    }
    let id = world.api().container(&world.project, "busybox", body).await?;
    world.api().wait_status(&id, "running").await?;
    Ok(id)
}

async fn restart(world: &World, id: &str) -> Result<()> {
    world.api().operate(id, "restart").await?;
    world.api().wait_status(id, "running").await.map(drop)
}

async fn disks(world: &mut World) -> Result<()> {
    let api = world.api().clone();
    let alone = with_disk(world, "alone", json!({})).await?;
    world.sh(
        &alone,
        "echo kept > /ramdisk/file && chown 7:7 /ramdisk/file && cp /bin/busybox /ramdisk/busybox && /ramdisk/busybox true",
    )?;
    ensure!(world.sh(&alone, "stat -c '%u %a' /ramdisk /ramdisk/file")?.lines().eq(["0 1777", "7 644"]));
    ensure!(world.sh(&alone, "grep ' /ramdisk ' /proc/mounts")?.contains("nosuid,nodev"));
    // Half of its memory, and counted as such.
    let full =
        world.sh(&alone, "dd if=/dev/zero of=/ramdisk/full bs=1M 2> /dev/null; du -m /ramdisk/full | cut -f1")?;
    ensure!((40..=48).contains(&full.trim().parse::<u32>()?), "{full} MiB fit");
    let used = api.get(&format!("/api/v1/containers/{alone}/stats")).await?;
    let group = hoody_tests::traces::cgroups(&alone);
    let counted = group.iter().filter_map(|group| {
        let name = ["memory.usage_in_bytes", "memory.current"]
            .into_iter()
            .map(|name| group.join(name))
            .find(|path| path.exists());
        std::fs::read_to_string(name?).ok()?.trim().parse::<u64>().ok()
    });
    let counted = counted.max().context("the group's memory")?;
    ensure!(counted > 40 << 20, "{counted} bytes are counted: {}", used.body);
    wait::until("it is measured", Duration::from_secs(60), async || {
        let stats = api.get(&format!("/api/v1/containers/{alone}/stats")).await?.data()?;
        let disk = &stats["ramdisk"];
        let full = disk["usage"]["private"].as_u64().is_some_and(|bytes| bytes > 40 << 20);
        Ok((full && disk["scope"] == "container" && disk["usage"]["project"].is_null()).then_some(()))
    })
    .await?;
    world.sh(&alone, "rm /ramdisk/full")?;
    restart(world, &alone).await?;
    ensure!(world.sh(&alone, "cat /ramdisk/file")?.trim() == "kept", "after a restart");

    // A project's, with one set of owners in all containers; the pool of 96 MiB is then full.
    let shared = json!({ "ramdisk_scope": "project" });
    let one = with_disk(world, "one", shared.clone()).await?;
    let two = with_disk(world, "two", shared).await?;
    world.sh(&one, "echo common > /ramdisk/file && chown 1000:1000 /ramdisk/file")?;
    ensure!(world.sh(&two, "stat -c '%u' /ramdisk/file; cat /ramdisk/file")?.lines().eq(["1000", "common"]));
    ensure!(!world.succeeds(&alone, "test -e /ramdisk/busybox && grep -q common /ramdisk/file"));
    let body = json!({ "container_image": "busybox", "name": "more", "server_id": world.server().id, "autostart": true,
        "specs": specs(), "ramdisk": true });
    let made = api.post(&format!("/api/v1/projects/{}/containers", world.project), body).await?.data()?;
    let more = made["id"].as_str().context("an id")?.to_owned();
    let failed = api.wait_status(&more, "failed").await?;
    ensure!(failed["warnings"][0]["type"] == "ramdisk_pool_full", "{failed}");
    // Without one it starts; with the last user the project's goes, and makes room.
    api.patch(&format!("/api/v1/containers/{more}"), json!({ "ramdisk": false })).await?.data()?;
    api.wait_status(&more, "running").await?;
    ensure!(!world.succeeds(&more, "grep -q ' /ramdisk ' /proc/mounts"));
    api.delete(&format!("/api/v1/containers/{one}"), None).await?.data()?;
    ensure!(world.sh(&two, "cat /ramdisk/file")?.trim() == "common");
    restart(world, &two).await?;
    ensure!(world.sh(&two, "cat /ramdisk/file")?.trim() == "common");
    api.delete(&format!("/api/v1/containers/{two}"), None).await?.data()?;
    api.patch(&format!("/api/v1/containers/{more}"), json!({ "ramdisk": true })).await?.data()?;
    restart(world, &more).await?;
    world.sh(&more, "echo x > /ramdisk/file")?;

    // The agent's crash takes nothing; a reboot takes all.
    world.cluster.servers[0].kill_agent()?;
    world.cluster.servers[0].start()?;
    world.until(&alone, "grep -q kept /ramdisk/file").await?;
    world.cluster.servers[0].reboot()?;
    world.cluster.servers[0].start()?;
    world.until(&alone, "grep -q ' /ramdisk ' /proc/mounts && ! test -e /ramdisk/file").await?;
    for id in [&alone, &more] {
        api.wait_status(id, "running").await?;
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    }
    let left = hoody_tests::traces::mounts(&world.server().run_dir().join("ramdisks/").display().to_string())?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
