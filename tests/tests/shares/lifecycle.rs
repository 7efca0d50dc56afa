//! Shares appear and go while both containers run, follow every change, and come back after every crash.

use crate::{World, plan};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Plan, run},
    traces, wait,
};
use serde_json::json;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_live_and_follows_every_change() -> Result<()> {
    let world = World::new(plan()).await?;
    let outcome = live(&world).await;
    outcome.with_context(|| world.cluster.log_tails())
}

async fn live(world: &World) -> Result<()> {
    let (api, source, target) = (world.api(), &world.source, &world.target);
    let processes = traces::processes_of(target)?;
    let share = world.share(json!({})).await?;
    ensure!(share["status"] == "active" && share["mount_path"] == "/mnt/shares/data", "{share}");
    // Without any wait: the answer comes when it is mounted.
    ensure!(world.sh(target, "cat /mnt/shares/data/file")?.trim() == "hello");
    // Owners are the same numbers on both sides, whichever wrote the file.
    world.sh(target, "echo back > /mnt/shares/data/new && chown 1000:100 /mnt/shares/data/new")?;
    ensure!(world.sh(source, "stat -c '%u %g' /srv/data/new /srv/data/file")?.lines().eq(["1000 100", "0 0"]));
    ensure!(
        world.sh(target, "stat -c '%u %g' /mnt/shares/data/new /mnt/shares/data/file")?.lines().eq(["1000 100", "0 0"])
    );
    let raw = world.server().pool().join("containers").join(source).join("srv/data/new");
    ensure!(
        run(Command::new("stat").args(["-c", "%u %g"]).arg(raw))?.trim() == "1000 100",
        "stored with container ids"
    );
    // The folder itself takes nothing.
    ensure!(!world.succeeds(target, "echo x > /mnt/shares/x") && !world.succeeds(target, "mkdir /mnt/shares/y"));

    let path = world.path(&share);
    api.patch(&path, json!({ "mode": "ro" })).await?.data()?;
    ensure!(!world.succeeds(target, "echo x >> /mnt/shares/data/file"), "written through a read-only share");
    ensure!(world.succeeds(source, "echo more >> /srv/data/file && rm /srv/data/new"), "the source writes on");
    api.patch(&path, json!({ "enabled": false })).await?.data()?;
    ensure!(world.sh(target, "ls /mnt/shares")?.is_empty());
    api.patch(&path, json!({ "enabled": true, "alias": "other" })).await?.data()?;
    ensure!(world.sh(target, "ls /mnt/shares; cat /mnt/shares/other/file")?.lines().eq(["other", "hello", "more"]));
    let incoming = format!("/api/v1/containers/{target}/storage/incoming");
    let id = share["id"].as_str().context("an id")?;
    api.patch(&format!("{incoming}/{id}/mount"), json!({ "enabled": false })).await?.data()?;
    ensure!(world.sh(target, "ls /mnt/shares")?.is_empty());
    api.patch(&format!("{incoming}/{id}/mount"), json!({ "enabled": true })).await?.data()?;
    ensure!(world.succeeds(target, "cat /mnt/shares/other/file"));
    ensure!(api.get(&incoming).await?.data()?[0]["mount"] == true);

    // Another folder in the place of the one that is mounted is there after the next look, and so is the first again.
    let look = format!("/api/v1/containers/{target}/env/LOOK");
    world.sh(source, "mv /srv/data /srv/aside && mkdir /srv/data && echo fresh >/srv/data/file")?;
    api.put(&look, json!({ "value": "1" })).await?.data()?;
    ensure!(world.sh(target, "cat /mnt/shares/other/file")?.trim() == "fresh");
    world.sh(source, "rm -r /srv/data && mv /srv/aside /srv/data")?;
    api.put(&look, json!({ "value": "2" })).await?.data()?;
    ensure!(world.sh(target, "cat /mnt/shares/other/file")?.starts_with("hello"));

    // An end that comes.
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 3;
    api.patch(&path, json!({ "expires_at": end })).await?.data()?;
    ensure!(world.succeeds(target, "cat /mnt/shares/other/file"));
    world.until(target, "! ls /mnt/shares | grep -q .").await?;
    let told = world.until_status(&share, |told| told["status_message"].is_string()).await?;
    ensure!(told["status_message"].as_str().is_some_and(|text| text.contains("expired")), "{told}");
    api.patch(&path, json!({ "expires_at": null })).await?.data()?;
    ensure!(world.succeeds(target, "cat /mnt/shares/other/file"));

    // A project's containers get it, those to come before their first program runs.
    let all =
        json!({ "target_container_id": null, "target_project_id": world.project, "alias": "all", "mode": "readonly" });
    let all = world.share(all).await?;
    ensure!(world.sh(target, "cat /mnt/shares/all/file")?.starts_with("hello"));
    ensure!(world.sh(source, "ls /mnt/shares")?.is_empty(), "not the source");
    let later = json!({ "name": "later", "server_id": world.server().id, "autostart": true, "specs": crate::specs() });
    let later = api.container(&world.project, "busybox", later).await?;
    api.wait_status(&later, "running").await?;
    ensure!(world.sh(&later, "cat /mnt/shares/all/file")?.starts_with("hello"));
    api.delete(&format!("/api/v1/containers/{later}"), None).await?.data()?;
    api.delete(&format!("/api/v1/storage/shares/{}", all["id"].as_str().context("an id")?), None).await?.data()?;
    ensure!(world.sh(target, "ls /mnt/shares")?.trim() == "other");

    // The source goes, files and all; nothing of it stays mounted.
    api.delete(&format!("/api/v1/containers/{source}"), None).await?.data()?;
    world.until(target, "! ls /mnt/shares | grep -q .").await?;
    ensure!(traces::mounts(source)?.is_empty(), "{:?}", traces::mounts(source)?);
    ensure!(traces::processes_of(target)? == processes, "the target was started again");
    api.delete(&format!("/api/v1/containers/{target}"), None).await?.data()?;
    wait::until("nothing is left", crate::DEADLINE, async || {
        let folder = world.server().run_dir().join("shares");
        let left = traces::mounts(&folder.join("").display().to_string())?.len() + std::fs::read_dir(folder)?.count();
        Ok((left == 0).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_come_back_after_every_crash_and_damage() -> Result<()> {
    let mut world = World::new(plan()).await?;
    let outcome = survive(&mut world).await;
    outcome.with_context(|| world.cluster.log_tails())
}

async fn survive(world: &mut World) -> Result<()> {
    let (source, target) = (world.source.clone(), world.target.clone());
    let share = world.share(json!({ "mode": "readonly" })).await?;
    const SEEN: &str = "grep -q hello /mnt/shares/data/file";
    // A program of the target's own, before anything else of it: what it sees is what was there.
    let init = "#!/bin/sh\ncp /mnt/shares/data/file /first 2> /dev/null\ntrap 'exit 0' TERM\nwhile :; do sleep 1 & wait $!; done\n";
    let root = world.server().pool().join("containers").join(&target);
    std::fs::write(root.join("bin/init"), init)?;
    std::fs::set_permissions(root.join("bin/init"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    world.api().operate(&target, "restart").await?;
    world.api().wait_status(&target, "running").await?;
    world.until(&target, "grep -q hello /first").await.context("the first program saw it")?;

    // Somebody takes it away on the server.
    let mounted = world.server().run_dir().join(format!("shares/{target}/mounts/data"));
    run(Command::new("umount").arg(&mounted))?;
    world.until(&target, SEEN).await.context("after it was unmounted")?;

    // The source's folder goes, and comes again as another.
    world.sh(&source, "mv /srv/data /srv/away")?;
    world.until_status(&share, |told| told["status"] == "failed").await?;
    ensure!(world.sh(&target, "ls /mnt/shares")?.is_empty());
    world.sh(&source, "mkdir /srv/data && echo hello again > /srv/data/file")?;
    world.until(&target, "grep -q again /mnt/shares/data/file").await.context("another folder")?;
    world.until_status(&share, |told| told["status"] == "active").await?;

    world.cluster.servers[0].kill_agent()?;
    ensure!(world.sh(&target, SEEN).is_ok(), "without an agent it stays");
    run(Command::new("umount").arg(&mounted))?;
    world.cluster.servers[0].start()?;
    world.until(&target, SEEN).await.context("after the agent was killed")?;

    world.sh(&target, "rm /first")?;
    world.cluster.servers[0].reboot()?;
    world.cluster.control_plane.kill()?;
    world.cluster.servers[0].start()?;
    world.until(&target, "grep -q hello /first").await.context("after a reboot, without the control plane")?;
    world.cluster.control_plane.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_on_different_servers_share_nothing() -> Result<()> {
    let world = World::new(Plan { servers: 2, ..plan() }).await?;
    let api = world.api();
    let away = json!({ "name": "away", "server_id": world.cluster.servers[1].id, "specs": crate::specs() });
    let away = api.container(&world.project, "busybox", away).await?;
    let body = json!({ "path": "/srv/data", "mode": "ro", "target_container_id": away });
    let path = format!("/api/v1/containers/{}/storage/shares", world.source);
    let refused = api.post(&path, body).await?;
    refused.expect_detail(422, "target_container_id")?;
    // A project's share reaches those that it can, and says so.
    let all = json!({ "target_container_id": null, "target_project_id": world.project });
    let told = world.share(all).await?;
    ensure!(told["status_message"].as_str().is_some_and(|text| text.contains("1 of 2")), "{told}");
    ensure!(world.sh(&world.target, "cat /mnt/shares/data/file")?.trim() == "hello");
    Ok(())
}
