//! A container that takes all it can get: its limits hold, and its neighbours and the agent go on.

use crate::{DEADLINE, DISK_MB, HOSTILE, PIDS, World, bare};
use anyhow::{Context, Result, ensure};
use hoody_tests::{cluster::run, image, traces, wait};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};

/// The agent's default bound of a container's log.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// The first process of an image: more than the log takes, with lines and without.
const FLOOD: &str =
    "#!/bin/sh\nyes a line of a flood | head -c 24m\nhead -c 24m /dev/zero\necho > /flooded\nexec sleep 100000\n";
const FLOOD_DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn disk(world: &World) -> Result<()> {
    let (one, two) = (&world.mine[0].0, &world.mine[1].0);
    let fill = format!("dd if=/dev/urandom of=/filler bs=1M count={} conv=fsync", DISK_MB * 2);
    let outcome = world.server().exec(one, &["sh", "-c", &fill]);
    let text = outcome.err().context("twice the disk limit was written")?.to_string();
    ensure!(text.contains("quota") || text.contains("No space"), "another failure than the disk limit: {text}");
    // The neighbour has all that it was promised.
    let half = format!("dd if=/dev/urandom of=/half bs=1M count={} conv=fsync && rm /half", DISK_MB / 2);
    world.server().exec(two, &["sh", "-c", &half]).context("the neighbour cannot write")?;
    // The container itself can make room and go on.
    world.server().exec(one, &["sh", "-c", "rm /filler && sync && echo again > /again"])?;
    Ok(())
}

pub(crate) async fn processes(world: &World) -> Result<()> {
    let (one, server) = (&world.mine[0].0, world.server());
    // Every process sleeps, so that the bomb costs memory and process ids, no processor time.
    // The shell ends where it cannot fork.
    let bomb = "i=0; while [ $i -lt 2000 ]; do sleep 300 < /dev/null > /dev/null 2>&1 & i=$((i+1)); done; wait";
    let outcome = server.exec(one, &["timeout", "60", "sh", "-c", bomb]);
    let text = outcome.err().context("2000 processes were made")?.to_string();
    ensure!(text.contains("fork"), "another failure than the limit: {text}");
    let seen = traces::processes_of(one)?.len();
    ensure!((PIDS / 2..=PIDS).contains(&seen), "{seen} processes run");
    server.exec(&world.mine[1].0, &["true"]).context("the neighbour cannot start a process")?;
    // A full container can still be stopped, and starts again.
    let api = &world.cluster.tenant;
    api.operate(one, "force-stop").await?;
    api.wait_status(one, "stopped").await?;
    ensure!(traces::processes_of(one)?.is_empty());
    api.operate(one, "start").await?;
    api.wait_status(one, "running").await?;
    Ok(())
}

pub(crate) async fn memory(world: &World) -> Result<()> {
    let (one, server, api) = (&world.mine[0].0, world.server(), &world.cluster.tenant);
    // The first process is made the kernel's first choice, before many that take a little each; making
    // that worse is anybody's right.
    server.exec(one, &["sh", "-c", "echo 1000 > /proc/1/oom_score_adj"])?;
    server.exec_detached(one, &["sh", "-c", "for i in $(seq 16); do tail /dev/zero & done; wait"])?;
    let row = wait::until("the container is ended", DEADLINE, async || {
        let row = api.get(&format!("/api/v1/containers/{one}")).await?.data()?;
        Ok(matches!(row["status"].as_str(), Some("stopped" | "failed")).then_some(row))
    })
    .await?;
    let warned = row["warnings"].as_array().into_iter().flatten().any(|warning| warning["type"] == "out_of_memory");
    ensure!(warned, "the container does not say why it ended: {row}");
    let logs = api.get(&format!("/api/v1/containers/{one}/status-logs?sort_order=desc")).await?.data()?;
    let last: &Value = &logs["logs"][0];
    ensure!(last["from_status"] == "running" && last["triggered_by"] == "node", "{last}");
    ensure!(last["metadata"].to_string().contains("out_of_memory"), "the log does not say why it ended: {last}");
    ensure!(last["duration_ms"].as_i64() > Some(0), "{last}");
    // Asked for again it runs again, without the mark.
    api.operate(one, "start").await?;
    let row = api.wait_status(one, "running").await?;
    ensure!(row["warnings"].as_array().is_none_or(Vec::is_empty), "{row}");
    // The other tenant saw nothing.
    let theirs = format!("/api/v1/containers/{}/status-logs?limit=100", world.theirs.0);
    let logs = world.other.get(&theirs).await?.data()?;
    ensure!(logs["logs"][0]["to_status"] == "running", "{logs}");
    Ok(())
}

/// Empty files cost metadata, which counts. Who fills his disk with them gets out by a higher limit, live.
pub(crate) async fn inodes(world: &World) -> Result<()> {
    let (server, api) = (world.server(), &world.cluster.tenant);
    let specs = json!({ "cpu_cores": 0.5, "memory_mb": 128, "storage_mb": 16 });
    let more = json!({ "name": "small", "server_id": server.id, "specs": specs });
    let id = api.container(&world.project, "busybox", more).await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    world.arm(&id)?;
    server.exec(&id, &["mkdir", "/files"])?;
    let made = world.hostile(&id, &["inodes", "/files", "1000000"])?;
    ensure!(made.contains("quota") || made.contains("No space"), "empty files have no limit: {made}");
    // The neighbour makes its own.
    ensure!(world.succeeds(&world.mine[1].0, "for i in $(seq 200); do echo > /root/$i; done; rm /root/1*"));
    let row = api.patch(&format!("/api/v1/containers/{id}"), json!({ "specs": { "storage_mb": 64 } })).await?.data()?;
    ensure!(row["status"] == "running", "{row}");
    server.exec(&id, &["rm", "-r", "/files"]).context("with a higher limit nothing can be removed")?;
    api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    Ok(())
}

/// What a container writes to its log is bounded, whether or not it has lines.
pub(crate) async fn log(world: &World) -> Result<()> {
    let (server, api) = (world.server(), &world.cluster.tenant);
    let folder = tempfile::tempdir()?;
    let (root, archive) = (folder.path().join("root"), folder.path().join("flood.tar"));
    std::fs::create_dir(&root)?;
    run(Command::new("tar").arg("-xpf").arg(image::archive("busybox")?).arg("-C").arg(&root))?;
    std::fs::write(root.join("bin/init"), FLOOD)?;
    run(Command::new("chmod").arg("755").arg(root.join("bin/init")))?;
    run(Command::new("tar").args(["--numeric-owner", "-cpf"]).arg(&archive).arg("-C").arg(&root).arg("."))?;
    world.cluster.control_plane.import_image("flood", &archive)?;
    let id = bare(server, api, &world.project, "flood", "flood").await?;
    let done = world.files(&id).join("flooded");
    wait::until("the flood is over", FLOOD_DEADLINE, async || Ok(done.exists().then_some(()))).await?;
    let bytes = std::fs::metadata(server.folder.join("state/logs").join(format!("{id}.log")))?.len();
    ensure!(bytes > 0 && bytes <= LOG_BYTES_MAX, "the log has {bytes} bytes");
    // Whoever reads the flood gives way to everybody else, and the container itself does not.
    let own = traces::processes_of(&id)?;
    let all = traces::processes_in(&id)?;
    ensure!(all.len() > own.len(), "no monitor was found");
    for pid in all {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let nice = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(16)).context("no niceness")?;
        let expected = if own.contains(&pid) { "0" } else { "19" };
        ensure!(nice == expected, "process {pid} has niceness {nice}, not {expected}");
    }
    api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    Ok(())
}

/// Counts that the whole kernel shares: one container takes all it gets, another still gets its own.
pub(crate) fn shared_counts(world: &World) -> Result<()> {
    let (one, two, server) = (&world.mine[0].0, &world.mine[1].0, world.server());
    world.arm(two)?;
    // More than the kernel's own allowance for all, and less than the container's memory pays for.
    for (what, most) in [("inotify", 5000), ("pty", 5000), ("aio", 500)] {
        server.exec_detached(
            one,
            &["sh", "-c", &format!("ulimit -n 60000; exec {HOSTILE} take {what} {most} hold > /taken")],
        )?;
        let end = std::time::Instant::now() + DEADLINE;
        let taken = loop {
            let taken = std::fs::read_to_string(world.files(one).join("taken")).unwrap_or_default();
            if !taken.is_empty() {
                break taken;
            }
            ensure!(std::time::Instant::now() < end, "{what}: the taker does not end");
            std::thread::yield_now();
        };
        let got = world.hostile(two, &["take", what, "20"]);
        server.exec(one, &["sh", "-c", "killall hostile; rm /taken"])?;
        let got = got?;
        ensure!(got.trim() == "20", "{what}: after {} were taken the neighbour gets {}", taken.trim(), got.trim());
    }
    Ok(())
}
