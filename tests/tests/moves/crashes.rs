//! Each of the three programs is killed with SIGKILL, at every fault point of theirs that a move reaches: each time the
//! container comes to be on one server, the one that it must be on, never runs on both, and nothing of it is left on the
//! other.

use crate::{World, alone, content::noise};
use anyhow::{Context, Result, anyhow, bail, ensure};
use hoody_tests::{
    cluster::Plan,
    deaths::{Deaths, Victim},
};
use serde_json::{Value, json};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Target,
    ControlPlane,
}

/// What becomes of the move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It could not move, and is where it was.
    Failed,
    /// It was never written down.
    Nothing,
}

use Outcome::{Done, Failed, Nothing};

/// The point, which time that it is reached (a move has five transfers: two snapshots, and three of what it has itself), and
/// what becomes of the move.
const POINTS: [(Role, &str, Outcome); 25] = [
    (Role::Source, "transfer.kept", Done),
    (Role::Source, "transfer.kept:2", Done),
    (Role::Source, "transfer.ordered:5", Done),
    (Role::Source, "stop.marked", Done),
    (Role::Source, "run.cleared", Done),
    (Role::Source, "root.deleted", Done),
    (Role::Target, "transfer.staged:2", Done),
    (Role::Target, "transfer.received:5", Done),
    (Role::Target, "snapshot.received", Done),
    (Role::Target, "snapshot.received:2", Done),
    (Role::Target, "root.received", Done),
    (Role::ControlPlane, "transfer.recorded:5", Done),
    (Role::ControlPlane, "move.writing", Nothing),
    (Role::ControlPlane, "move.committed", Done),
    (Role::ControlPlane, "move.arrived", Done),
    (Role::ControlPlane, "move.snapshot_sent", Done),
    (Role::ControlPlane, "move.copied", Done),
    (Role::ControlPlane, "move.holding", Done),
    (Role::ControlPlane, "move.held", Done),
    (Role::ControlPlane, "move.stopped", Done),
    (Role::ControlPlane, "move.switching", Done),
    (Role::ControlPlane, "move.switched", Done),
    (Role::ControlPlane, "move.done", Done),
    (Role::ControlPlane, "move.failing", Failed),
    (Role::ControlPlane, "move.failed", Failed),
];

#[test]
fn the_control_plane_dies_at_each_point_of_a_move() {
    for point in hoody_fault::CONTROL_PLANE_MOVES {
        assert!(POINTS.iter().any(|(_, armed, _)| armed.split(':').next() == Some(point)), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_survives_the_death_of_either_agent_at_each_point() -> Result<()> {
    survives(|role| role != Role::ControlPlane).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_survives_the_death_of_the_control_plane_at_each_point() -> Result<()> {
    survives(|role| role == Role::ControlPlane).await
}

async fn survives(dies: fn(Role) -> bool) -> Result<()> {
    let mut world = World::with(Plan::default()).await?;
    let deaths = Deaths::new(&mut world.cluster).await?;
    let watch = Watch::start(&world);
    let outcome = moves(&mut world, &deaths, dies).await;
    outcome.and(watch.end()).with_context(|| world.cluster.log_tails())
}

async fn moves(world: &mut World, deaths: &Deaths, dies: fn(Role) -> bool) -> Result<()> {
    let id = world.writer.clone();
    let mut at = 0;
    for state in ["one", "two"] {
        fs::write(world.root(at, &id).join("srv/state"), state)?;
        world.take(&id, state).await?;
    }
    for (role, point, expected) in POINTS.into_iter().filter(|(role, ..)| dies(*role)) {
        let said = format!("{role:?} at {point}");
        let victim = match role {
            Role::Source => Victim::Agent(at),
            Role::Target => Victim::Agent(1 - at),
            Role::ControlPlane => Victim::ControlPlane,
        };
        let before = world.api.get(&format!("/api/v1/containers/{id}/move")).await?.body["data"]["id"].clone();
        if expected == Failed {
            // There is time to change something while it is copied.
            fs::write(world.root(at, &id).join("srv/bulk"), noise(48 << 20, 1))?;
        }
        deaths.arm(victim, point)?;
        let asked = tokio::spawn({
            let (api, target) = (world.api.clone(), world.cluster.servers[1 - at].id.clone());
            let path = format!("/api/v1/containers/{id}/move");
            async move { api.post(&path, json!({ "target_server_id": target })).await }
        });
        if expected == Failed {
            asked.await??.data()?;
            // The answer may be lost; the cause says that it was done.
            let _ = world.api.operate(&id, "pause").await;
            deaths.wait(&mut world.cluster, victim).await.context(said.clone())?;
        } else {
            deaths.wait(&mut world.cluster, victim).await.context(said.clone())?;
            // Who asked may not know.
            let _ = asked.await?;
        }
        let ended = ended(world, &id, &before, expected).await.context(said.clone())?;
        if expected == Done {
            at = 1 - at;
        }
        if expected == Failed {
            world.api.operate(&id, "resume").await?;
        }
        world.writes(&id, at).await.with_context(|| format!("{said}: {ended}"))?;
        let held = world.snapshots(at, &id, "srv/state").await.with_context(|| said.clone())?;
        ensure!(held.len() == 2 && held.contains_key("one") && held.contains_key("two"), "{said}: {held:?}");
        if expected == Failed {
            fs::remove_file(world.root(at, &id).join("srv/bulk"))?;
        }
        println!("{said}: {expected:?}, pause {} ms", ended["pause_ms"]);
    }
    Ok(())
}

/// Waits for the end of the move, and that it is what it should be.
async fn ended(world: &World, id: &str, before: &Value, expected: Outcome) -> Result<Value> {
    if expected == Nothing {
        let last = world.api.get(&format!("/api/v1/containers/{id}/move")).await?.body["data"].clone();
        ensure!(last["id"] == *before, "it was written down: {last}");
        return Ok(last);
    }
    let ended = world.ended(id).await?;
    ensure!(ended["id"] != *before, "it was lost: {ended}");
    match (expected, ended["state"].as_str()) {
        (Done, Some("done")) => {}
        (Failed, Some("failed")) => ensure!(ended["cause"]["code"] == "paused", "{ended}"),
        _ => bail!("expected {expected:?}: {ended}"),
    }
    Ok(ended)
}

/// Sees all the time that the container does not run on both servers.
struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Watch {
    fn start(world: &World) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let servers: Vec<String> = world.cluster.servers.iter().map(|server| server.name.to_string()).collect();
        let (id, ends) = (world.writer.clone(), over.clone());
        let thread = thread::spawn(move || {
            let mut looks = 0;
            while !ends.load(Relaxed) {
                alone(&servers, &id)?;
                looks += 1;
                // Between two looks the machine is the programs'.
                thread::sleep(Duration::from_millis(50));
            }
            Ok(looks)
        });
        Self { over, thread }
    }

    fn end(self) -> Result<()> {
        self.over.store(true, Relaxed);
        let looks = self.thread.join().map_err(|_| anyhow!("the watch ended"))??;
        ensure!(looks > 0, "nobody looked");
        Ok(())
    }
}
