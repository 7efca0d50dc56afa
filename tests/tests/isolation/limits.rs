//! Limits changed over the API are in force in the running container.

use crate::{DEADLINE, World};
use anyhow::{Context, Result, ensure};
use hoody_tests::{probe, traces, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// The kernel counts disk use with its commits, every 30 s.
const MEASURED: Duration = Duration::from_secs(90);

/// Memory that a program in a container touches at once.
fn touches(world: &World, container: &str, mib: u32) -> bool {
    world.succeeds(container, &format!("dd if=/dev/zero of=/dev/null bs={mib}M count=1"))
}

fn writes(world: &World, container: &str, mib: u32) -> bool {
    world.succeeds(
        container,
        &format!("dd if=/dev/urandom of=/filler bs=1M count={mib} conv=fsync; s=$?; rm /filler; exit $s"),
    )
}

/// Processor time per accounting period in thousandths of a core, as the kernel has it.
fn quota_millis(container: &str) -> Result<u64> {
    let groups = traces::cgroups(container);
    let read = |name: &str| groups.iter().find_map(|group| std::fs::read_to_string(group.join(name)).ok());
    if let Some(quota) = read("cpu.cfs_quota_us") {
        return Ok(quota.trim().parse::<u64>()? / 100);
    }
    let v2 = read("cpu.max").context("no processor limit")?;
    Ok(v2.split(' ').next().context("empty")?.parse::<u64>()? / 100)
}

/// The rate at the server's end of the container's link, as `tc` shows it.
fn rate(world: &World, container: &str) -> Result<String> {
    let interface = format!("hy{}", &container[12..]);
    let output = world.server().command("tc").args(["qdisc", "show", "dev", &interface]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn update(world: &World, container: &str, specs: Value) -> Result<Value> {
    let path = format!("/api/v1/containers/{container}");
    world.cluster.tenant.patch(&path, json!({ "specs": specs })).await?.data()
}

pub(crate) async fn change_live(world: &World) -> Result<()> {
    let (container, web) = &world.mine[0];
    let processes = traces::processes_of(container)?;
    ensure!(quota_millis(container)? == 250 && rate(world, container)?.contains("rate 1Gbit"));
    ensure!(!touches(world, container, 100) && !writes(world, container, 100), "more than the limit was taken");
    let specs = json!({ "cpu_cores": 0.75, "memory_mb": 256, "storage_mb": 256, "network_mbit": 5 });
    let row = update(world, container, specs.clone()).await?;
    ensure!(row["specs"] == specs && row["status"] == "running", "{row}");
    ensure!(
        row["warnings"].as_array().is_none_or(|all| all.iter().all(|one| one["type"] != "limits_not_in_force")),
        "{row}"
    );
    ensure!(quota_millis(container)? == 750, "the processor limit is {}", quota_millis(container)?);
    ensure!(rate(world, container)?.contains("rate 5Mbit"), "{}", rate(world, container)?);
    ensure!(touches(world, container, 100) && writes(world, container, 100), "the higher limits are not in force");
    // And down again.
    let path = format!("/api/v1/containers/{container}");
    let specs = json!({ "cpu_cores": 0.2, "memory_mb": 64, "storage_mb": 64 });
    // What was removed counts until it is measured again.
    wait::until("the smaller disk is accepted", MEASURED, async || {
        let answer = world.cluster.tenant.patch(&path, json!({ "specs": specs })).await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    ensure!(quota_millis(container)? == 200);
    ensure!(rate(world, container)?.contains("rate 5Mbit"), "what was not named has changed");
    ensure!(!touches(world, container, 100) && !writes(world, container, 100), "the lower limits are not in force");
    probe::answers_now(web, true)?;
    ensure!(
        processes.iter().all(|pid| traces::processes_of(container).is_ok_and(|now| now.contains(pid))),
        "it was restarted"
    );
    // More than the server has.
    let refused = world.cluster.tenant.patch(&path, json!({ "specs": { "memory_mb": 4 << 20 } })).await?;
    refused.expect_detail(422, "specs.memory_mb")?;
    Ok(())
}

/// Memory that is in use is not taken away; the limit comes when it is free.
pub(crate) async fn memory_in_use(world: &World) -> Result<()> {
    let (container, web) = &world.mine[0];
    update(world, container, json!({ "memory_mb": 256 })).await?;
    // Files in memory, which the kernel cannot drop; /dev/shm itself takes 32 MiB.
    let hold = "dd if=/dev/zero of=/dev/shm/held bs=1M count=30";
    ensure!(world.succeeds(container, hold));
    let row = update(world, container, json!({ "memory_mb": 24 })).await?;
    ensure!(row["status"] == "running" && row["warnings"].to_string().contains("limits_not_in_force"), "{row}");
    ensure!(touches(world, container, 100), "the limit before does not hold");
    world.server().exec(container, &["rm", "/dev/shm/held"])?;
    let path = format!("/api/v1/containers/{container}");
    wait::until("the limit is in force", DEADLINE, async || {
        let row = world.cluster.tenant.get(&path).await?.data()?;
        Ok((!row["warnings"].to_string().contains("limits_not_in_force")).then_some(()))
    })
    .await?;
    ensure!(!touches(world, container, 100), "the limit is said to be in force and is not");
    probe::answers_now(web, true)
}

/// A process that the kernel ends for lack of memory is in the status log, also where the container lives on.
pub(crate) async fn a_child_out_of_memory(world: &World) -> Result<()> {
    let container = &world.mine[0].0;
    ensure!(!touches(world, container, 200));
    let path = format!("/api/v1/containers/{container}/status-logs?sort_order=desc");
    wait::until("the log says so", DEADLINE, async || {
        let logs = world.cluster.tenant.get(&path).await?.data()?;
        let last = &logs["logs"][0];
        let said = last["metadata"]["cause"]["code"] == "out_of_memory";
        Ok((said && last["from_status"] == "running" && last["to_status"] == "running").then_some(()))
    })
    .await
}
