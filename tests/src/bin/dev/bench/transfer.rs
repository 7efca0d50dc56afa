//! A container's file system from one server to another, beside `btrfs send | btrfs receive` between the same two pools;
//! and what a change of another container takes meanwhile, with either. The pools are as on disks of their own; the control
//! plane, which is not on its servers, has its database in memory, but for two of them, which have a PostgreSQL.

use super::table;
use crate::measure::Times;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Database, Plan, run},
    postgres::FreshDatabase,
    wait,
};
use rand::Rng;
use serde_json::json;
use std::{
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const ROUNDS: usize = 5;
/// What is sent: hard to compress, in files of two sizes.
const LARGE_MIB: usize = 384;
const SMALL_FILES: usize = 2_000;
const SMALL_BYTES: usize = 32 << 10;
/// Changes while nothing is sent.
const IDLE_CHANGES: usize = 300;
/// Pause between changes, idle and meanwhile: they measure, and are no load of their own.
const CHANGE_PAUSE: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(600);

/// Where memory is a file system.
const MEMORY: &str = "/dev/shm";
const POOL_BYTES: u64 = 8 << 30;

/// What lies between the servers.
#[derive(Debug, Clone, Copy)]
struct Between {
    /// Bytes of the packets that the network carries.
    packet_bytes: u16,
    /// Control planes: one for both servers, or one for each.
    planes: usize,
}

/// The packets that every network carries, and those of one that is set up for large ones.
const BETWEEN: [Between; 3] = [
    Between { packet_bytes: 1_500, planes: 1 },
    Between { packet_bytes: 9_000, planes: 1 },
    Between { packet_bytes: 9_000, planes: 2 },
];

pub(super) async fn run_part() -> Result<()> {
    for between in BETWEEN {
        let memory = tempfile::tempdir_in(MEMORY)?;
        if between.planes == 1 {
            measured(between, Database::SqliteIn(memory.path().to_owned())).await?;
        } else {
            let database = FreshDatabase::create()?;
            measured(between, Database::Postgres(database.url())).await?;
        }
    }
    Ok(())
}

async fn measured(between: Between, database: Database) -> Result<()> {
    let Between { packet_bytes, planes } = between;
    let plan = Plan {
        servers: 2,
        database,
        replicas: planes - 1,
        spread: planes > 1,
        packet_bytes,
        pool_bytes: POOL_BYTES,
        pool_disks: true,
        settings: vec![("HOODY_CONTAINER_NETWORK_MBIT", "0".to_owned())],
        ..Plan::default()
    };
    let cluster = Cluster::start(plan).await?;
    let api = cluster.tenant.unchecked();
    let project = api.project("bench-transfer").await?;
    let specs = json!({ "cpu_cores": 0.5, "memory_mb": 64, "storage_mb": 2048 });
    let made = json!({ "name": "sent", "server_id": cluster.servers[0].id, "specs": specs });
    let source = api.container(&project, "busybox", made).await?;
    let beside = json!({ "name": "beside", "autostart": true, "server_id": cluster.servers[0].id, "specs": specs });
    let beside = api.container(&project, "busybox", beside).await?;
    let root = cluster.servers[0].pool().join("containers").join(&source);
    let bytes = fill(&root)?;
    let mut idle = Times::default();
    for number in 0..IDLE_CHANGES {
        idle.push(change(&api, &beside, number).await?);
    }
    let (mut ours, mut peers) = (Times::default(), Times::default());
    let (mut meanwhile, mut beside_peers) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        // Who is first finds the files in memory as the other does: they were just written, or just sent.
        for is_ours in [round % 2 == 0, round % 2 == 1] {
            let (times, changes) = if is_ours { (&mut ours, &mut meanwhile) } else { (&mut peers, &mut beside_peers) };
            let work = async {
                if is_ours {
                    return sent(&cluster, &api, &source, round).await;
                }
                let [from, to] = [0, 1].map(|server| cluster.servers[server].pool().join("staging"));
                let root = root.clone();
                tokio::task::spawn_blocking(move || piped(&root, &from, &to, round)).await?
            };
            times.push(changing_meanwhile(&api, &beside, changes, work).await?);
        }
    }
    table::part(&format!(
        "{} MiB in {} files from one server to another, packets of {packet_bytes} bytes, through {planes} control plane(s), \
         {ROUNDS} rounds",
        bytes >> 20,
        SMALL_FILES + 1
    ));
    table::head();
    table::times("copy, until its root file system is there", &ours, Some(("btrfs send | btrfs receive", &peers)));
    table::times("btrfs send | btrfs receive", &peers, None);
    let rate = |times: &Times| (bytes >> 20) as f64 / (times.percentile(50.0) / 1000.0);
    table::value("copy", &format!("{:.0} MiB/s", rate(&ours)));
    table::value("btrfs send | btrfs receive", &format!("{:.0} MiB/s", rate(&peers)));
    table::value("share of it (bar: 60 %)", &format!("{:.0} %", 100.0 * rate(&ours) / rate(&peers)));
    table::times("a change of another container, idle", &idle, None);
    table::times(&format!("meanwhile ({} of them)", meanwhile.len()), &meanwhile, Some(("idle", &idle)));
    let name = format!("beside btrfs send | btrfs receive ({})", beside_peers.len());
    table::times(&name, &beside_peers, Some(("idle", &idle)));
    let quiet = idle.percentile(99.0);
    for (name, times) in
        [("p99 of it (bar: 2 x idle)", &meanwhile), ("p99 beside btrfs send | btrfs receive", &beside_peers)]
    {
        let busy = times.percentile(99.0);
        table::value(name, &format!("{busy:.1} ms, {:.2} x idle", busy / quiet));
    }
    Ok(())
}

/// Writes what is sent; its bytes.
fn fill(root: &Path) -> Result<u64> {
    let folder = root.join("srv/bench");
    std::fs::create_dir_all(&folder)?;
    let mut bytes = vec![0; 1 << 20];
    let mut large = std::fs::File::create(folder.join("large"))?;
    for _ in 0..LARGE_MIB {
        rand::rng().fill_bytes(&mut bytes);
        large.write_all(&bytes)?;
    }
    for number in 0..SMALL_FILES {
        rand::rng().fill_bytes(&mut bytes[..SMALL_BYTES]);
        std::fs::write(folder.join(number.to_string()), &bytes[..SMALL_BYTES])?;
    }
    run(Command::new("sync").arg("-f").arg(&folder))?;
    Ok(((LARGE_MIB << 20) + SMALL_FILES * SMALL_BYTES) as u64)
}

/// What the work takes, while another container is changed.
async fn changing_meanwhile(
    api: &Api,
    beside: &str,
    changes: &mut Times,
    work: impl Future<Output = Result<Duration>>,
) -> Result<Duration> {
    let changing = async {
        for number in 0.. {
            match change(api, beside, number).await {
                Ok(time) => changes.push(time),
                Err(error) => return error,
            }
        }
        unreachable!("numbers do not end")
    };
    tokio::select! {
        done = work => done,
        error = changing => Err(error),
    }
}

/// One copy.
async fn sent(cluster: &Cluster, api: &Api, source: &str, round: usize) -> Result<Duration> {
    let begun = Instant::now();
    let body = json!({ "name": format!("round-{round}"), "target_server_id": cluster.servers[1].id });
    let copied = api.post(&format!("/api/v1/containers/{source}/copy"), body).await?.data()?;
    let path = format!("/api/v1/containers/{}", copied["id"].as_str().context("an id")?);
    let time = wait::until("the copy", DEADLINE, async || {
        let row = api.get(&path).await?.data()?;
        ensure!(row["status"] != "failed", "{row}");
        Ok((row["status"] == "stopped").then(|| begun.elapsed()))
    })
    .await?;
    api.delete(&path, None).await?.data()?;
    Ok(time)
}

/// A change, until the node has persisted it.
async fn change(api: &Api, container: &str, number: usize) -> Result<Duration> {
    let begun = Instant::now();
    let value = json!({ "value": number.to_string() });
    api.put(&format!("/api/v1/containers/{container}/env/NUMBER"), value).await?.data()?;
    let taken = begun.elapsed();
    tokio::time::sleep(CHANGE_PAUSE).await;
    Ok(taken)
}

/// The same file system between the same pools, by the programs.
fn piped(root: &Path, from: &Path, to: &Path, round: usize) -> Result<Duration> {
    let kept = from.join(format!("bench-{round}"));
    let begun = Instant::now();
    run(Command::new("btrfs").args(["-q", "subvolume", "snapshot", "-r"]).arg(root).arg(&kept))?;
    let script = "set -o pipefail; btrfs -q send \"$1\" | btrfs -q receive \"$2\" && sync -f \"$2\"";
    run(Command::new("bash").args(["-c", script, "bash"]).arg(&kept).arg(to))?;
    let taken = begun.elapsed();
    for subvolume in [kept, to.join(format!("bench-{round}"))] {
        run(Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(subvolume))?;
    }
    Ok(taken)
}
