//! What containers that share, or are shared with, can do to each other and to the server.

use crate::{World, ensure_all, plan};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_share_gives_what_it_says_and_no_more() -> Result<()> {
    let world = World::new(plan()).await?;
    let agent = world.server().agent_pid();
    let outcome = bounds(&world).await;
    outcome.with_context(|| world.cluster.log_tails())?;
    ensure!(world.server().agent_pid() == agent && world.server().status()?["link"]["state"] == "up");
    Ok(())
}

async fn bounds(world: &World) -> Result<()> {
    let (source, target) = (&world.source, &world.target);
    world
        .sh(source, "echo secret > /srv/secret; echo '#!/bin/sh' > /srv/data/program; chmod 4755 /srv/data/program")?;
    let share = world.share(json!({ "mode": "readonly" })).await?;
    let mut problems = Vec::new();
    // From inside, as root of the container.
    for script in [
        "echo x > /mnt/shares/data/file",
        "touch /mnt/shares/data/file",
        "mount -o remount,rw,bind /mnt/shares/data",
        "umount /mnt/shares/data",
        "mount -t tmpfs none /mnt/shares/data",
        "mknod /mnt/shares/data/null c 1 3",
        "cat /mnt/shares/data/../secret",
    ] {
        if world.succeeds(target, script) {
            problems.push(format!("this works in the target: {script}"));
        }
    }
    // The same with every capability in the container's own user namespace, which can mount otherwise.
    world
        .as_privileged(target, "mkdir -p /tmp/copy && mount -o bind /mnt/shares/data /tmp/copy && umount /tmp/copy")?;
    world.as_privileged(target, "mount -o bind /mnt/shares/data /tmp/copy")?;
    for script in [
        "mount -o remount,rw,bind /mnt/shares/data",
        "mount -o remount,bind,ro,suid /mnt/shares/data",
        "mount -o remount,bind,ro,dev /mnt/shares/data",
        "mount -o remount,rw,bind /tmp/copy",
        "echo x > /mnt/shares/data/file",
        "echo x > /mnt/shares/x",
        "umount /mnt/shares/data && test -e /mnt/shares/data/file",
        "mount -o remount,rw,bind /mnt/shares && echo x > /mnt/shares/x",
    ] {
        if world.as_privileged(target, script).is_ok() {
            problems.push(format!("this works with every capability: {script}"));
        }
    }
    // It was taken off inside by the privileged one: that is the container's own loss, until its next start.
    world.api().operate(target, "restart").await?;
    world.api().wait_status(target, "running").await?;
    ensure!(world.succeeds(target, "grep -q hello /mnt/shares/data/file"), "after a restart");
    let flags = world.sh(target, "grep ' /mnt/shares' /proc/self/mounts")?;
    for line in flags.lines() {
        if !["ro,", "nosuid", "nodev"].iter().all(|flag| line.contains(flag)) {
            problems.push(format!("flags of {line}"));
        }
    }
    // Nothing of the server's run folder, nor of the source's host ids, is seen.
    if flags.contains("/run/") || world.sh(target, "stat -c '%u' /mnt/shares/data/file")?.trim() != "0" {
        problems.push(format!("the source is seen: {flags}"));
    }

    // What is mounted inside below a share does not keep it.
    let (api, path) = (world.api(), world.path(&share));
    world.sh(source, "mkdir -p /srv/data/below")?;
    world.as_privileged(target, "mount -t tmpfs none /mnt/shares/data/below")?;
    api.patch(&path, json!({ "enabled": false })).await?.data()?;
    if world.succeeds(target, "ls /mnt/shares | grep -q .") {
        problems.push("a mount inside of it keeps a share that was taken away".to_owned());
    }
    api.patch(&path, json!({ "enabled": true, "mode": "readwrite" })).await?.data()?;
    if !world.succeeds(target, "echo x > /mnt/shares/data/written") {
        problems.push("a share for writing takes nothing".to_owned());
    }
    if world.as_privileged(target, "mount -o remount,bind,suid /mnt/shares/data").is_ok() {
        problems.push("setuid can be had back".to_owned());
    }
    // Nor does a share of a share, or a circle of them.
    let back = json!({ "path": "/srv", "mode": "rw", "target_container_id": source, "alias": "back" });
    world.sh(target, "mkdir -p /srv && ln -s /mnt/shares/data /srv/circle")?;
    let back = api.post(&format!("/api/v1/containers/{target}/storage/shares"), back).await?.data()?;
    if back["status"] != "active" || world.succeeds(source, "cat /mnt/shares/back/circle/../../srv/secret/x") {
        problems.push(format!("a circle: {back}"));
    }
    let nested = json!({ "path": "/srv/circle", "mode": "rw", "target_container_id": source, "alias": "nested" });
    let nested = api.post(&format!("/api/v1/containers/{target}/storage/shares"), nested).await?.data()?;
    if nested["status"] != "failed" {
        problems.push(format!("a share was shared: {nested}"));
    }
    ensure_all(problems)
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_change_while_it_is_mounted_lead_nowhere_else() -> Result<()> {
    let world = World::new(plan()).await?;
    let outcome = races(&world).await;
    outcome.with_context(|| world.cluster.log_tails())
}

async fn races(world: &World) -> Result<()> {
    let (api, source, target) = (world.api(), &world.source, &world.target);
    // Folders and links to everywhere take each other's place as fast as a shell can.
    let swap = "cd /srv; mkdir -p good; echo hello > good/file; while :; do \
        for to in / /proc/self/root /etc /dev ../../../.. /mnt/shares nowhere; do \
        rm -rf flip; ln -s $to flip; rm -f flip; mv good flip; mv flip good; done; done";
    world.server().exec_detached(source, &["sh", "-c", swap])?;
    let mut problems = Vec::new();
    let share = world.share(json!({ "path": "/srv/flip", "mode": "readwrite" })).await?;
    let path = world.path(&share);
    let begun = Instant::now();
    for round in 0..12 {
        for enabled in [false, true] {
            api.patch(&path, json!({ "enabled": enabled, "mode": if round % 2 == 0 { "ro" } else { "rw" } }))
                .await?
                .data()?;
        }
        // Whatever it is now, it is in the source: never the server's, nor the target's.
        let seen =
            world.sh(target, "ls /mnt/shares/data/ 2> /dev/null; stat -c %u /mnt/shares/data/ 2> /dev/null; true")?;
        for foreign in ["vmlinuz", "hoody", "lost+found", "65534", "containers", "images"] {
            if seen.lines().any(|line| line == foreign) {
                problems.push(format!("round {round}: {seen}"));
            }
        }
    }
    println!("12 rounds of mounting beside changing links: {:?}", begun.elapsed());
    // The agent answers at once for others, and the share goes when it is told to.
    let begun = Instant::now();
    api.delete(&format!("/api/v1/storage/shares/{}", share["id"].as_str().context("an id")?), None).await?.data()?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    ensure!(world.sh(target, "ls /mnt/shares")?.is_empty());

    // A folder that cannot be made is no reason not to start.
    api.operate(target, "stop").await?;
    api.wait_status(target, "stopped").await?;
    let root = world.server().pool().join("containers").join(target);
    for place in ["mnt/shares", "mnt"] {
        // It may not be there, or hold more.
        let _ = std::fs::remove_dir(root.join(place));
    }
    std::fs::write(root.join("mnt"), "in the way")?;
    let share = world.share(json!({})).await?;
    api.operate(target, "start").await?;
    api.wait_status(target, "running").await?;
    let told = world.until_status(&share, |told| told["status"] == "failed").await?;
    if !told["status_message"].as_str().is_some_and(|text| text.contains("restart it")) {
        problems.push(format!("{told}"));
    }
    ensure_all(problems)
}
