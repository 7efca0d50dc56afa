//! Each of the three programs is killed with SIGKILL, at every fault point of theirs that a copy and a sync reach, and in the
//! middle of the stream: each time the copy comes to be what its origin is.

use crate::{DEADLINE, World, content};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::Plan,
    deaths::{self, Deaths, Victim},
    wait,
};
use serde_json::json;
use std::fs;

const SOURCE: Victim = Victim::Agent(0);
const TARGET: Victim = Victim::Agent(1);

const COPY: [(Victim, &str); 7] = [
    (SOURCE, "transfer.kept"),
    (SOURCE, "transfer.ordered"),
    (TARGET, "transfer.staged"),
    (TARGET, "transfer.received"),
    (TARGET, "root.received"),
    (Victim::ControlPlane, "transfer.connected"),
    (Victim::ControlPlane, "transfer.recorded"),
];

const SYNC: [(Victim, &str); 11] = [
    (SOURCE, "transfer.ordered"),
    (TARGET, "transfer.staged"),
    (TARGET, "transfer.received"),
    (TARGET, "sync.kept"),
    (TARGET, "copy.staged"),
    (TARGET, "swap.aside"),
    (Victim::ControlPlane, "transfer.recorded"),
    (Victim::ControlPlane, "sync.writing"),
    (Victim::ControlPlane, "sync.committed"),
    (Victim::ControlPlane, "sync.received"),
    (Victim::ControlPlane, "sync.begun"),
];

struct Walk {
    world: World,
    deaths: Deaths,
}

impl Walk {
    async fn new() -> Result<Self> {
        let mut world = World::with(Plan { settings: Vec::new(), ..Plan::default() }).await?;
        let deaths = Deaths::new(&mut world.cluster).await?;
        Ok(Self { world, deaths })
    }

    /// Waits for the death at the point, and starts what died.
    async fn dies(&mut self, victim: Victim) -> Result<()> {
        self.deaths.wait(&mut self.world.cluster, victim).await
    }
}

/// Shows the logs where it fails.
async fn walked(test: impl AsyncFnOnce(&mut Walk) -> Result<()>) -> Result<()> {
    let mut walk = Walk::new().await?;
    let outcome = test(&mut walk).await;
    outcome.with_context(|| walk.world.cluster.log_tails())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_survives_the_death_of_each_program_at_each_point() -> Result<()> {
    walked(copies).await
}

async fn copies(walk: &mut Walk) -> Result<()> {
    for (victim, point) in COPY {
        walk.deaths.arm(victim, point)?;
        let copy = walk.world.begin_copy("away").await?;
        walk.dies(victim).await.with_context(|| format!("{victim:?} at {point}"))?;
        walk.world.running(&copy).await.with_context(|| format!("after the death of {victim:?} at {point}"))?;
        let world = &walk.world;
        content::same(&world.data(0, &world.source), &world.data(1, &copy)).with_context(|| point)?;
        world.delete(1, &copy).await.with_context(|| point)?;
        let partial: Vec<String> = world.kept(1)?;
        ensure!(partial.is_empty(), "left at {point}: {partial:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_survives_the_death_of_each_program_at_each_point() -> Result<()> {
    walked(syncs).await
}

async fn syncs(walk: &mut Walk) -> Result<()> {
    let copy = walk.world.copy("away").await?;
    for (round, (victim, point)) in SYNC.into_iter().enumerate() {
        let said = format!("{victim:?} at {point}");
        let (before, own) = (walk.world.ends(&copy).await?.len(), walk.world.data(1, &copy).join("mine"));
        fs::write(&own, "mine")?;
        fs::write(walk.world.data(0, &walk.world.source).join("state"), format!("round {round}"))?;
        walk.deaths.arm(victim, point)?;
        let asked = tokio::spawn({
            let (api, path) = (walk.world.api.clone(), format!("/api/v1/containers/{copy}/sync"));
            async move { api.post(&path, json!({})).await }
        });
        walk.dies(victim).await.context(said.clone())?;
        match asked.await? {
            Ok(answer) => _ = answer.data().context(said.clone())?,
            // Who asked does not know, and asks again: it was written down, or it was not.
            Err(_) => {
                let again = walk.world.post(&copy, "sync", json!({})).await?;
                ensure!(matches!(again.status, 200 | 409), "{said}: {}", again.body);
            }
        }
        let ended = walk.world.synced(&copy, before).await.context(said.clone())?;
        let world = &walk.world;
        world.running(&copy).await.context(said.clone())?;
        // Where it was not done all is as it was, and it is done when it is asked for again.
        if ended == "failed" {
            ensure!(own.exists(), "{said}: it failed, and what the copy had is gone");
            ensure!(world.sync(&copy).await? == "succeeded", "{said}: again");
        }
        content::same(&world.data(0, &world.source), &world.data(1, &copy)).context(said.clone())?;
        ensure!(!own.exists(), "{said}");
    }
    walk.world.delete(1, &copy).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_in_the_middle_goes_on() -> Result<()> {
    walked(middle).await
}

async fn middle(walk: &mut Walk) -> Result<()> {
    fs::write(walk.world.data(0, &walk.world.source).join("bulk"), content::noise(300 << 20, 3))?;
    for victim in [SOURCE, TARGET, Victim::ControlPlane] {
        let copy = walk.world.begin_copy("away").await?;
        let seen = wait::until("some of the stream", DEADLINE, async || {
            let row = walk.world.get(&copy, "?runtime=true").await?;
            let transfer = row["runtime_info"]["transfer"].clone();
            ensure!(row["status"] == "copying", "it was made before it could be broken: {row}");
            Ok(transfer["bytes_done"].as_u64().is_some_and(|bytes| bytes > 0).then_some(transfer))
        })
        .await?;
        ensure!(
            seen["state"] == "moving" && seen["bytes_per_second"].is_u64() && seen["eta_seconds"].is_u64(),
            "{seen}"
        );
        ensure!(seen["bytes_total"].as_u64() > Some(300 << 20), "{seen}");
        deaths::process(&mut walk.world.cluster, victim)?.kill()?;
        deaths::start(&mut walk.world.cluster, victim).await?;
        walk.world.running(&copy).await.with_context(|| format!("after the death of {victim:?}"))?;
        let world = &walk.world;
        content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
        world.delete(1, &copy).await?;
    }
    Ok(())
}
