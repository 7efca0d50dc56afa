//! Each of the three programs is killed with SIGKILL, at every fault point of theirs that a copy and a sync reach, and in the
//! middle of the stream: each time the copy comes to be what its origin is.

use crate::{DEADLINE, World, content};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Plan, Process},
    faults::Faults,
    wait,
};
use nix::libc::SIGKILL;
use serde_json::json;
use std::fs;

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Source,
    Target,
    ControlPlane,
}

const COPY: [(Victim, &str); 7] = [
    (Victim::Source, "transfer.kept"),
    (Victim::Source, "transfer.ordered"),
    (Victim::Target, "transfer.staged"),
    (Victim::Target, "transfer.received"),
    (Victim::Target, "root.received"),
    (Victim::ControlPlane, "transfer.connected"),
    (Victim::ControlPlane, "transfer.recorded"),
];

const SYNC: [(Victim, &str); 11] = [
    (Victim::Source, "transfer.ordered"),
    (Victim::Target, "transfer.staged"),
    (Victim::Target, "transfer.received"),
    (Victim::Target, "sync.kept"),
    (Victim::Target, "copy.staged"),
    (Victim::Target, "swap.aside"),
    (Victim::ControlPlane, "transfer.recorded"),
    (Victim::ControlPlane, "sync.writing"),
    (Victim::ControlPlane, "sync.committed"),
    (Victim::ControlPlane, "sync.received"),
    (Victim::ControlPlane, "sync.begun"),
];

struct Walk {
    world: World,
    source: Faults,
    target: Faults,
    plane: Faults,
}

impl Walk {
    async fn new() -> Result<Self> {
        let (source, target, plane) = (Faults::new()?, Faults::new()?, Faults::new()?);
        for faults in [&source, &target, &plane] {
            faults.disarm()?;
        }
        let mut world = World::with(Plan { settings: Vec::new(), ..Plan::default() }).await?;
        world.cluster.servers[0].environment.push(source.environment());
        world.cluster.servers[1].environment.push(target.environment());
        world.cluster.control_plane.environment.push(plane.environment());
        for server in &mut world.cluster.servers {
            server.stop_agent()?;
        }
        world.cluster.control_plane.stop()?;
        let mut this = Self { world, source, target, plane };
        this.world.cluster.control_plane.start().await?;
        for server in 0..2 {
            this.world.cluster.servers[server].start()?;
            this.world.online(server).await?;
        }
        Ok(this)
    }

    fn faults(&self, victim: Victim) -> &Faults {
        match victim {
            Victim::Source => &self.source,
            Victim::Target => &self.target,
            Victim::ControlPlane => &self.plane,
        }
    }

    fn process(&mut self, victim: Victim) -> Result<&mut Process> {
        match victim {
            Victim::Source => self.world.cluster.servers[0].agent(),
            Victim::Target => self.world.cluster.servers[1].agent(),
            Victim::ControlPlane => self.world.cluster.control_plane.process(),
        }
    }

    async fn start(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Source => self.world.cluster.servers[0].start()?,
            Victim::Target => self.world.cluster.servers[1].start()?,
            Victim::ControlPlane => self.world.cluster.control_plane.start().await?,
        }
        self.world.online(0).await?;
        self.world.online(1).await
    }

    /// Waits for the death at the point, and starts what died.
    async fn dies(&mut self, victim: Victim) -> Result<()> {
        wait::until("the death at the point", DEADLINE, async || {
            let Some(signal) = self.process(victim)?.killed()? else { return Ok(None) };
            ensure!(signal == SIGKILL, "ended by signal {signal}");
            Ok(Some(()))
        })
        .await?;
        self.faults(victim).disarm()?;
        self.start(victim).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_survives_the_death_of_each_program_at_each_point() -> Result<()> {
    let mut walk = Walk::new().await?;
    let outcome = copies(&mut walk).await;
    outcome.with_context(|| walk.world.cluster.log_tails())
}

async fn copies(walk: &mut Walk) -> Result<()> {
    for (victim, point) in COPY {
        walk.faults(victim).arm(point)?;
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
    let mut walk = Walk::new().await?;
    let outcome = syncs(&mut walk).await;
    outcome.with_context(|| walk.world.cluster.log_tails())
}

async fn syncs(walk: &mut Walk) -> Result<()> {
    let copy = walk.world.copy("away").await?;
    for (round, (victim, point)) in SYNC.into_iter().enumerate() {
        let said = format!("{victim:?} at {point}");
        let (before, own) = (walk.world.ends(&copy).await?.len(), walk.world.data(1, &copy).join("mine"));
        fs::write(&own, "mine")?;
        fs::write(walk.world.data(0, &walk.world.source).join("state"), format!("round {round}"))?;
        walk.faults(victim).arm(point)?;
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
    let mut walk = Walk::new().await?;
    let outcome = middle(&mut walk).await;
    outcome.with_context(|| walk.world.cluster.log_tails())
}

async fn middle(walk: &mut Walk) -> Result<()> {
    fs::write(walk.world.data(0, &walk.world.source).join("bulk"), content::noise(300 << 20, 3))?;
    for victim in [Victim::Source, Victim::Target, Victim::ControlPlane] {
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
        walk.process(victim)?.kill()?;
        walk.start(victim).await?;
        walk.world.running(&copy).await.with_context(|| format!("after the death of {victim:?}"))?;
        let world = &walk.world;
        content::same(&world.data(0, &world.source), &world.data(1, &copy))?;
        world.delete(1, &copy).await?;
    }
    Ok(())
}
