//! `dev up | down | demo | bench | bench-scale | bench-events`: a cluster on this machine, for people. `up` stays in the
//! background until `down`.

use anyhow::{Context, Result, bail, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, TENANT},
    image::workspace,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

mod bench;
mod demo;
mod events;
mod measure;
mod scale;

const UP_DEADLINE: Duration = Duration::from_secs(180);
const DOWN_DEADLINE: Duration = Duration::from_secs(90);
const IMAGES: [&str; 2] = ["debian/12", "busybox"];

#[tokio::main]
async fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("up") => up(),
        Some("serve") => serve().await,
        Some("down") => down(),
        Some("demo") => demo::run().await,
        Some("bench") => bench::run().await,
        Some("bench-scale") => scale::run().await,
        Some("bench-events") => events::run().await,
        _ => bail!("usage: dev up | down | demo | bench | bench-scale | bench-events"),
    }
}

fn folder() -> PathBuf {
    workspace().join(".dev")
}

fn running() -> Option<i32> {
    let pid: i32 = std::fs::read_to_string(folder().join("pid")).ok()?.trim().parse().ok()?;
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    line.contains("serve").then_some(pid)
}

/// Starts `dev serve` in the background and waits until it has written the environment file.
fn up() -> Result<()> {
    ensure!(running().is_none(), "a cluster is up already: `make down` ends it");
    let folder = folder();
    // What an earlier cluster left would be taken for this one's.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let log = std::fs::File::create(folder.join("cluster.log"))?;
    let mut child = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    std::fs::write(folder.join("pid"), child.id().to_string())?;
    let end = Instant::now() + UP_DEADLINE;
    while !folder.join("env").exists() {
        if let Some(status) = child.try_wait()? {
            bail!("the cluster did not come up ({status}): see .dev/cluster.log");
        }
        ensure!(Instant::now() < end, "the cluster did not come up in time: see .dev/cluster.log");
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("up; `. .dev/env` sets HOODY_BASE_URL, HOODY_TOKEN and the rest; `make down` ends it");
    print!("{}", std::fs::read_to_string(folder.join("env"))?);
    Ok(())
}

/// The cluster itself, until it is told to end.
async fn serve() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let servers = std::env::var("NODES").ok().map_or(Ok(1), |nodes| nodes.parse()).context("NODES is a number")?;
    let plan = Plan {
        servers,
        images: IMAGES.to_vec(),
        folder: Some(folder().join("cluster")),
        http_port: Some(8080),
        ..Plan::default()
    };
    let cluster = Cluster::start(plan).await?;
    let ids: Vec<&str> = cluster.servers.iter().map(|server| server.id.as_str()).collect();
    let env = format!(
        "export HOODY_BASE_URL='{}'\nexport HOODY_TOKEN='{}'\nexport HOODY_USERNAME='{TENANT}'\n\
         export HOODY_PASSWORD='{}'\nexport HOODY_SERVER_IDS='{}'\n",
        cluster.control_plane.base_url(),
        cluster.tenant.token.as_deref().unwrap_or_default(),
        cluster.password,
        ids.join(","),
    );
    let beside = folder().join("env.tmp");
    std::fs::write(&beside, env)?;
    std::fs::rename(beside, folder().join("env"))?;
    terminate.recv().await;
    drop(cluster);
    Ok(())
}

fn down() -> Result<()> {
    let Some(pid) = running() else {
        println!("no cluster is up");
        return Ok(());
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    let end = Instant::now() + DOWN_DEADLINE;
    while running().is_some() {
        ensure!(Instant::now() < end, "the cluster (process {pid}) does not end: see .dev/cluster.log");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_dir_all(folder())?;
    println!("down");
    Ok(())
}
