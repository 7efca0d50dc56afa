//! Clients that go away, and programs that are killed in the middle.

use crate::{DEADLINE, World};
use anyhow::{Context, Result, ensure};
use hoody_tests::{cluster::Plan, faults::Faults, wait};
use serde_json::json;

/// Files that are more than what is on its way at once.
fn fill(world: &World, id: &str) -> Result<()> {
    let mut noise = vec![0u8; 48 << 20];
    let mut state = 1u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    Ok(std::fs::write(world.root(id).join("noise"), noise)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_everything() -> Result<()> {
    let world = World::new(Plan::default()).await?;
    let id = world.container(json!({ "autostart": false })).await?;
    fill(&world, &id)?;
    for _ in 0..3 {
        let mut response = world.begin(&id).await?;
        ensure!(response.chunk().await?.is_some());
        assert_eq!(world.kept()?.len(), 1);
        // One of a container at a time.
        let second = world.begin(&id).await?;
        assert_eq!(second.status(), 429, "{}", second.text().await?);
        drop(response);
        world.nothing_kept().await?;
    }
    // A container that goes takes its export along.
    let response = world.begin(&id).await?;
    world.delete(&id).await?;
    ensure!(response.bytes().await.is_err(), "an archive of half a container looked whole");
    world.nothing_kept().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_during_both_leaves_nothing() -> Result<()> {
    let faults = Faults::new()?;
    faults.disarm()?;
    let mut world = World::new(Plan { agent_environment: vec![faults.environment()], ..Plan::default() }).await?;
    let id = world.container(json!({ "autostart": false })).await?;
    fill(&world, &id)?;
    let whole = world.exported(&id).await?;
    for point in hoody_fault::AGENT_EXPORTS {
        faults.arm(point)?;
        // Refused, or broken off: never whole. The next agent is there meanwhile.
        let answer = tokio::spawn(whole_or_status(world.request(&id)?));
        revive(&mut world, &faults, point).await?;
        let status = answer.await??;
        ensure!(status.is_none_or(|status| (502..=504).contains(&status)), "{point}: {status:?}");
        ensure!(world.kept()?.is_empty(), "{point}: {:?}", world.kept()?);
        world.exported(&id).await.with_context(|| format!("after {point}"))?;
        world.nothing_kept().await?;
    }
    for point in ["image.unpacked", "root.created"] {
        faults.arm(point)?;
        let made = world.import("&autostart=false&name=again", whole.clone()).await?.data()?;
        let new = made["id"].as_str().context("an id")?.to_owned();
        revive(&mut world, &faults, point).await?;
        world.api.wait_status(&new, "stopped").await.with_context(|| format!("after {point}"))?;
        ensure!(world.root(&new).join("noise").exists());
        world.delete(&new).await?;
        // As after a while: the image is nobody's, and the next import unpacks it anew.
        let images = world.cluster.servers[0].pool().join("images");
        wait::until("the private image is gone", DEADLINE, async || {
            if std::fs::read_dir(&images)?.count() == 1 {
                return Ok(Some(()));
            }
            world.cluster.servers[0].kill_agent()?;
            world.cluster.servers[0].start()?;
            let server = &world.cluster.servers[0];
            world.cluster.wait_online(server, true).await?;
            Ok(None)
        })
        .await
        .with_context(|| format!("after {point}"))?;
    }
    Ok(())
}

/// The status of a refusal; `None` where the answer broke off. An answer that looks whole is an error.
async fn whole_or_status(request: reqwest::RequestBuilder) -> Result<Option<u16>> {
    let Ok(response) = request.send().await else { return Ok(None) };
    let status = response.status().as_u16();
    if status != 200 {
        return Ok(Some(status));
    }
    ensure!(response.bytes().await.is_err(), "an archive of an agent that died looked whole");
    Ok(None)
}

async fn revive(world: &mut World, faults: &Faults, point: &str) -> Result<()> {
    wait::until(&format!("killed at {point}"), DEADLINE, async || {
        Ok(world.cluster.servers[0].agent()?.killed()?.is_some().then_some(()))
    })
    .await?;
    faults.disarm()?;
    world.cluster.servers[0].start()?;
    let server = &world.cluster.servers[0];
    wait::until("the link", DEADLINE, async || {
        let Ok(status) = server.status() else { return Ok(None) };
        Ok((status["link"]["state"] == "up").then_some(()))
    })
    .await?;
    world.cluster.wait_online(server, true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_killed_during_an_import() -> Result<()> {
    let faults = Faults::new()?;
    faults.disarm()?;
    let mut world = World::new(Plan::default()).await?;
    world.cluster.control_plane.environment.push(faults.environment());
    world.cluster.control_plane.stop()?;
    world.cluster.control_plane.start().await?;
    world.cluster.wait_online(&world.cluster.servers[0], true).await?;
    let archive = crate::crafted::harmless()?;
    for point in hoody_fault::IMPORTS {
        faults.arm(point)?;
        ensure!(world.import("&autostart=false&name=cut", archive.clone()).await.is_err(), "{point}");
        faults.disarm()?;
        world.cluster.control_plane.start().await?;
        world.cluster.wait_online(&world.cluster.servers[0], true).await?;
        let made = world.containers().await?;
        ensure!(made.len() == usize::from(*point == "import.committed"), "{point}: {made:?}");
        for container in made {
            let id = container["id"].as_str().context("an id")?.to_owned();
            world.api.wait_status(&id, "stopped").await?;
            world.delete(&id).await?;
        }
        // An upload that was cut off goes at the start, and a blob that nobody came to name with the next collection.
        wait::until("the upload is gone", DEADLINE, async || {
            let uploads = world.blobs()?.into_iter().filter(|name| name.starts_with('.') && name != ".lock");
            Ok((uploads.count() == 0).then_some(()))
        })
        .await
        .with_context(|| format!("after {point}: {:?}", world.blobs()))?;
        world.cluster.control_plane.cli(&["image", "collect"])?;
        let left: Vec<_> = world.blobs()?.into_iter().filter(|name| name != ".lock").collect();
        ensure!(left.len() == 1, "{point}: {left:?}");
    }
    Ok(())
}
