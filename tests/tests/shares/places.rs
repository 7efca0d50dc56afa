//! Shares at places of their own: live, as safe as below `/mnt/shares`, and wherever the target's files lead.

use crate::{World, plan};
use anyhow::{Context, Result, ensure};
use hoody_tests::{cluster::run, traces};
use serde_json::{Value, json};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_share_appears_at_its_place_live_and_after_everything() -> Result<()> {
    let mut world = World::new(plan()).await?;
    let outcome = live(&mut world).await;
    outcome.with_context(|| world.cluster.log_tails())
}

async fn live(world: &mut World) -> Result<()> {
    let (source, target) = (world.source.clone(), world.target.clone());
    let processes = traces::processes_of(&target)?;
    // The folders are made; owners are the same numbers as below /mnt/shares.
    let share = world.share(json!({ "mount_path": "/mnt/shared/deep" })).await?;
    ensure!(share["status"] == "active" && share["mount_path"] == "/mnt/shared/deep", "{share}");
    ensure!(world.sh(&target, "cat /mnt/shared/deep/file /mnt/shares/data/file")?.lines().eq(["hello", "hello"]));
    world.sh(&target, "echo back > /mnt/shared/deep/new && chown 1000:100 /mnt/shared/deep/new")?;
    ensure!(world.sh(&source, "stat -c '%u %g' /srv/data/new")?.trim() == "1000 100");
    ensure!(world.sh(&target, "stat -c '%u %g' /mnt/shared /mnt/shared/deep/new")?.lines().eq(["0 0", "1000 100"]));

    // Not even with every capability there is it made more than it is.
    let path = world.path(&share);
    world.api().patch(&path, json!({ "mode": "ro" })).await?.data()?;
    ensure!(!world.succeeds(&target, "echo x >> /mnt/shared/deep/file"), "written through a read-only share");
    for flags in ["rw", "suid", "dev"] {
        let remount = format!("mount -o remount,bind,{flags} /mnt/shared/deep");
        ensure!(world.as_privileged(&target, &remount).is_err(), "remounted {flags}");
    }
    ensure!(!world.succeeds(&target, "mv /mnt/shared/deep /mnt/elsewhere"), "moved");

    // It moves where it is told to, over what is there, which comes back.
    world.sh(&target, "mkdir -p /opt/place && echo own > /opt/place/own")?;
    world.api().patch(&path, json!({ "mount_path": "/opt/place" })).await?.data()?;
    ensure!(world.sh(&target, "ls /opt/place")?.lines().eq(["file", "new"]));
    ensure!(world.succeeds(&target, "! test -e /mnt/shared"), "folders that were made for it are left");
    world.api().patch(&path, json!({ "enabled": false })).await?.data()?;
    ensure!(world.sh(&target, "ls /opt/place")?.trim() == "own");
    world.api().patch(&path, json!({ "enabled": true })).await?.data()?;
    ensure!(world.succeeds(&target, "test -e /opt/place/file"));
    ensure!(traces::processes_of(&target)? == processes, "the target was started again");

    // After a crash of the agent, a start of the container, somebody on the server, and a reboot.
    const SEEN: &str = "grep -q hello /opt/place/file";
    let mounted = world.server().run_dir().join(format!("rootfs/{target}/rootfs/opt/place"));
    world.cluster.servers[0].kill_agent()?;
    run(Command::new("umount").arg(&mounted))?;
    world.cluster.servers[0].start()?;
    world.until(&target, SEEN).await.context("after the agent was killed")?;
    // A program of the target's own, before anything else of it: what it sees is what was there.
    let init =
        "#!/bin/sh\ncp /opt/place/file /first 2> /dev/null\ntrap 'exit 0' TERM\nwhile :; do sleep 1 & wait $!; done\n";
    let program = world.server().pool().join("containers").join(&target).join("bin/init");
    std::fs::write(&program, init)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    world.api().operate(&target, "restart").await?;
    world.until(&target, "grep -q hello /first").await.context("the first program saw it")?;
    world.until(&target, SEEN).await.context("after a restart")?;
    world.cluster.servers[0].reboot()?;
    world.cluster.servers[0].start()?;
    world.until(&target, SEEN).await.context("after a reboot")?;
    let server = world.server().id.clone();
    world.cluster.wait_online(&world.cluster.servers[0], true).await.context(server)?;

    // It ends with its share, and nothing of either stays mounted.
    world
        .api()
        .delete(&format!("/api/v1/storage/shares/{}", share["id"].as_str().context("an id")?), None)
        .await?
        .data()?;
    ensure!(world.sh(&target, "ls /opt/place")?.trim() == "own");
    world.api().delete(&format!("/api/v1/containers/{target}"), None).await?.data()?;
    hoody_tests::wait::until("nothing is left", crate::DEADLINE, async || {
        Ok(traces::mounts(&target)?.is_empty().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_cannot_lead_a_share_astray() -> Result<()> {
    let world = World::new(plan()).await?;
    let outcome = astray(&world).await;
    outcome.with_context(|| world.cluster.log_tails())
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_and_copies_hold_nothing_of_a_share() -> Result<()> {
    let world = World::new(plan()).await?;
    let outcome = kept(&world).await;
    outcome.with_context(|| world.cluster.log_tails())
}

async fn kept(world: &World) -> Result<()> {
    let (api, target) = (world.api(), &world.target);
    let path = |more: &str| format!("/api/v1/containers/{target}/{more}");
    let share = world.share(json!({ "mount_path": "/srv/placed/deep" })).await?;
    const SEEN: &str = "grep -q hello /srv/placed/deep/file";
    ensure!(world.succeeds(target, SEEN), "{share}");
    api.post(&path("snapshots"), json!({ "name": "placed" })).await?.data()?;
    let pool = world.server().pool();
    for folder in std::fs::read_dir(pool.join("snapshots").join(target))? {
        let place = folder?.path().join("srv/placed/deep");
        ensure!(std::fs::read_dir(&place)?.next().is_none(), "{}", place.display());
    }
    world.sh(target, "touch /srv/later")?;
    api.put(&path("snapshots/placed"), json!({})).await?.data()?;
    world.until(target, &format!("{SEEN} && ! test -e /srv/later")).await.context("after a restoration")?;
    // A copy of the folder is not a copy of what is mounted there, nor is it left behind.
    let copy = api.post(&path("copy"), json!({ "name": "copied" })).await?.data()?;
    let copy = copy["id"].as_str().context("an id")?;
    api.wait_status(copy, "running").await?;
    ensure!(world.sh(copy, "test -e /srv/placed || echo gone")?.trim() == "gone");

    // While it is stopped there is nothing of it; what was put there meanwhile stays.
    api.operate(target, "stop").await?;
    api.wait_status(target, "stopped").await?;
    let root = pool.join("containers").join(target);
    ensure!(!root.join("srv/placed").exists());
    api.delete(&format!("/api/v1/storage/shares/{}", share["id"].as_str().context("an id")?), None).await?.data()?;
    api.operate(target, "start").await?;
    api.wait_status(target, "running").await?;
    ensure!(world.succeeds(target, "! test -e /srv/placed"));

    // No room for a folder: it is said, and there is one once there is.
    let share = world.share(json!({ "alias": "late", "mount_path": "/srv/late", "enabled": false })).await?;
    world.sh(
        target,
        "dd if=/dev/urandom of=/full bs=64k 2> /dev/null; i=0; while mkdir /fill$i 2> /dev/null; do \
        i=$((i + 1)); test $i -lt 20000 || break; done; true",
    )?;
    let told = api.patch(&world.path(&share), json!({ "enabled": true })).await?.data()?;
    let full = !world.succeeds(target, "mkdir /one-more");
    ensure!(!full || told["status"] == "failed", "{told}");
    world.sh(target, "rm /full")?;
    world.until(target, "grep -q hello /srv/late/file").await
}

async fn astray(world: &World) -> Result<()> {
    let (api, target) = (world.api(), &world.target);
    let problem = |told: &Value| told["status_message"].as_str().is_some_and(|text| text.contains("mount_path"));
    let outside = tempfile::Builder::new().prefix("hoody-astray-").tempdir()?;
    let out = outside.path().display();
    // Links resolve in the container: outside of it nothing is mounted, made or seen.
    world
        .sh(target, &format!("mkdir -p /opt/real && ln -s {out} /opt/out && ln -s ../../../../../../{out} /opt/up"))?;
    world.sh(
        target,
        "ln -s /proc /opt/proc && ln -s /opt/real /opt/link && echo x > /opt/plain && ln -s loop /opt/loop",
    )?;
    let share = world.share(json!({ "mount_path": "/opt/link" })).await?;
    ensure!(share["status"] == "active" && world.sh(target, "cat /opt/real/file")?.trim() == "hello", "{share}");
    let path = world.path(&share);
    for place in ["/opt/out", "/opt/up", "/opt/proc", "/opt/plain", "/opt/plain/x", "/opt/loop"] {
        let told = api.patch(&path, json!({ "mount_path": place })).await?.data()?;
        ensure!(told["status"] == "failed" && problem(&told), "{place}: {told}");
        ensure!(world.sh(target, "ls /opt/real; cat /mnt/shares/data/file")?.trim() == "hello", "{place}");
        ensure!(std::fs::read_dir(outside.path())?.next().is_none(), "{place}");
        ensure!(traces::mounts(&outside.path().display().to_string())?.is_empty(), "{place}");
    }
    // What was in the way goes, and it is mounted.
    api.patch(&path, json!({ "mount_path": "/opt/plain" })).await?.data()?;
    world.sh(target, "rm /opt/plain")?;
    world.until(target, "grep -q hello /opt/plain/file").await?;

    // A folder above is moved, and the share with it: it comes back to its place and is nowhere else.
    api.patch(&path, json!({ "mount_path": "/home/a/b" })).await?.data()?;
    ensure!(world.succeeds(target, "test -e /home/a/b/file && mv /home/a /home/moved"));
    world.until(target, "test -e /home/a/b/file && ! test -e /home/moved/b/file").await?;

    // One inside of another is refused, whichever is older; with the other gone it has its place.
    let inner = json!({ "alias": "inner", "mount_path": "/home/a/b/c" });
    let inner = world.share(inner).await?;
    ensure!(inner["status"] == "failed" && problem(&inner), "{inner}");
    ensure!(!world.succeeds(&world.source, "test -e /srv/data/c"), "a folder was made in the source");
    api.patch(&path, json!({ "mount_path": null })).await?.data()?;
    world.until(target, "test -e /home/a/b/c/file").await?;

    // A source that has nothing any more leaves nothing at its target's place.
    api.delete(&format!("/api/v1/containers/{}", world.source), None).await?.data()?;
    world.until(target, "! test -e /home/a/b/c/file").await
}
