//! Commands while a program dies: at every point that they reach, and for longer.

use super::{DEADLINE, cluster, execute, path, processes, run, runs, script, until};
use anyhow::{Context, Result, ensure};
use hoody_tests::{cluster::Cluster, faults::Faults, wait};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Where an execution is not over.
const OPEN: [&str; 2] = ["pending", "running"];

fn marker(cluster: &Cluster, slug: &str) -> PathBuf {
    cluster.folder().join(format!("runs-{slug}"))
}

/// Asks for a command that notes that it runs; whoever is asked may die of it.
async fn ask(cluster: &Cluster, slug: &str) -> Result<()> {
    let text = format!("echo run >> {}; echo done", marker(cluster, slug).display());
    script(&cluster.admin, slug, &text, json!({})).await?;
    // The answer does not count: it may be cut off.
    let _ = execute(cluster, json!({ "command": slug })).await;
    Ok(())
}

/// Waits until every execution of the command is over; there is at most one.
async fn settled(cluster: &Cluster, slug: &str) -> Result<Option<Value>> {
    let path = format!("/api/v1/servers/{}/command-executions?limit=100", cluster.servers[0].id);
    wait::until("the command is over", DEADLINE, async || {
        let all = cluster.tenant.get(&path).await?.data()?;
        let all = all["executions"].as_array().context("no list")?.clone();
        let mine: Vec<Value> = all.into_iter().filter(|one| one["command_slug"] == slug).collect();
        ensure!(mine.len() <= 1, "asked for once, written down {} times", mine.len());
        let open = mine.iter().any(|one| OPEN.iter().any(|word| one["status"] == *word));
        Ok((!open).then(|| mine.into_iter().next()))
    })
    .await
}

/// It ran at most once, and it is told as it was.
async fn check(cluster: &Cluster, slug: &str) -> Result<()> {
    let ended = settled(cluster, slug).await?;
    let runs = runs(&marker(cluster, slug));
    let status = ended.as_ref().map_or("absent", |ended| ended["status"].as_str().unwrap_or_default());
    let fits = match status {
        "completed" => runs == 1,
        "interrupted" => runs <= 1,
        "absent" | "expired" | "failed" => runs == 0,
        _ => false,
    };
    ensure!(fits, "it ran {runs} times and is {status}: {ended:?}");
    if status == "completed" {
        let one = ended.context("no execution")?;
        let read = cluster.tenant.get(&path(cluster, &one)).await?.data()?;
        ensure!(read["output"] == "done\n", "{read}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_point_an_agent_dies_at_a_command_runs_once_at_most() -> Result<()> {
    let mut cluster = cluster().await?;
    let faults = Faults::new()?;
    faults.disarm()?;
    cluster.servers[0].environment.push(faults.environment());
    cluster.servers[0].kill_agent()?;
    for point in hoody_fault::AGENT_COMMANDS {
        let slug = point.replace('.', "-");
        faults.disarm()?;
        faults.forget()?;
        cluster.servers[0].start()?;
        cluster.wait_online(&cluster.servers[0], true).await?;
        faults.arm(point)?;
        ask(&cluster, &slug).await?;
        let what = format!("the agent reaches {point}");
        let died = wait::until(&what, DEADLINE, async || Ok(faults.reached().contains(*point).then_some(())));
        died.await?;
        cluster.servers[0].kill_agent()?;
        faults.disarm()?;
        cluster.servers[0].start()?;
        check(&cluster, &slug).await.with_context(|| format!("killed at {point}\n{}", cluster.log_tails()))?;
        cluster.servers[0].kill_agent()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_point_a_control_plane_dies_at_a_command_runs_once_at_most() -> Result<()> {
    let mut cluster = cluster().await?;
    let faults = Faults::new()?;
    faults.disarm()?;
    cluster.control_plane.environment.push(faults.environment());
    for point in hoody_fault::CONTROL_PLANE_COMMANDS {
        let slug = point.replace('.', "-");
        faults.disarm()?;
        cluster.control_plane.kill()?;
        cluster.control_plane.start().await?;
        cluster.wait_online(&cluster.servers[0], true).await?;
        faults.forget()?;
        faults.arm(point)?;
        ask(&cluster, &slug).await?;
        let what = format!("the control plane reaches {point}");
        let died = wait::until(&what, DEADLINE, async || Ok(faults.reached().contains(*point).then_some(())));
        died.await?;
        faults.disarm()?;
        cluster.control_plane.kill()?;
        cluster.control_plane.start().await?;
        cluster.wait_online(&cluster.servers[0], true).await?;
        check(&cluster, &slug).await.with_context(|| format!("killed at {point}\n{}", cluster.log_tails()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_outlives_the_control_plane_and_not_the_agent() -> Result<()> {
    let mut cluster = cluster().await?;
    let go = cluster.folder().join("go");
    let text = format!("echo up; while [ ! -e {} ]; do sleep 0.05; done; echo down", go.display());
    script(&cluster.admin, "long", &text, json!({})).await?;
    let first = execute(&cluster, json!({ "command": "long" })).await?.data()?;
    until(&cluster, &first, "running").await?;
    wait::until("it runs", DEADLINE, async || Ok((processes(&go.display().to_string())? > 0).then_some(()))).await?;
    cluster.control_plane.kill()?;
    std::fs::write(&go, "")?;
    wait::until("it ends", DEADLINE, async || Ok((processes(&go.display().to_string())? == 0).then_some(()))).await?;
    cluster.control_plane.start().await?;
    let told = until(&cluster, &first, "completed").await?;
    ensure!(told["output"] == "up\ndown\n", "{told}");

    std::fs::remove_file(&go)?;
    let second = execute(&cluster, json!({ "command": "long" })).await?.data()?;
    wait::until("it runs", DEADLINE, async || Ok((processes(&go.display().to_string())? > 0).then_some(()))).await?;
    cluster.servers[0].kill_agent()?;
    cluster.servers[0].start()?;
    let told = until(&cluster, &second, "interrupted").await?;
    ensure!(told["error"]["code"] == "interrupted", "{told}");
    ensure!(processes(&go.display().to_string())? == 0, "something of it is left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_restarts_when_it_is_told_to() -> Result<()> {
    let mut cluster = cluster().await?;
    let asked = execute(&cluster, json!({ "command": "agent-restart" })).await?.data()?;
    let pid = cluster.servers[0].agent_pid().context("no agent")?;
    wait::until("the agent ends", DEADLINE, async || {
        // Its process stays as a zombie until it is waited for.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Ok((status.is_empty() || status.contains("State:\tZ")).then_some(()))
    })
    .await?;
    // What systemd does.
    cluster.servers[0].kill_agent()?;
    cluster.servers[0].start()?;
    let done = until(&cluster, &asked, "completed").await?;
    ensure!(done["exit_code"] == 0, "{done}");
    cluster.wait_online(&cluster.servers[0], true).await?;
    let usage = run(&cluster, "disk-usage").await?;
    ensure!(usage["status"] == "completed", "{usage}");

    // Without its server a command is refused, and does not run later.
    cluster.servers[0].stop_agent()?;
    cluster.wait_online(&cluster.servers[0], false).await?;
    execute(&cluster, json!({ "command": "disk-usage" })).await?.expect_refusal(503, "UNAVAILABLE").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_on_while_its_server_is_cut_off() -> Result<()> {
    let cluster = cluster().await?;
    let go = cluster.folder().join("go");
    let text = format!("echo up; while [ ! -e {} ]; do sleep 0.05; done; seq 1 2000; echo down", go.display());
    script(&cluster.admin, "long", &text, json!({})).await?;
    let asked = execute(&cluster, json!({ "command": "long" })).await?.data()?;
    until(&cluster, &asked, "running").await?;
    cluster.servers[0].set_uplink(false)?;
    cluster.wait_online(&cluster.servers[0], false).await?;
    std::fs::write(&go, "")?;
    wait::until("it ends", DEADLINE, async || Ok((processes(&go.display().to_string())? == 0).then_some(()))).await?;
    cluster.servers[0].set_uplink(true)?;
    let told = until(&cluster, &asked, "completed").await?;
    let numbers: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    ensure!(told["output"] == format!("up\n{numbers}down\n"), "it is not told whole and once: {told}");
    Ok(())
}
