//! A process that a request waits for.

use crate::{
    World,
    client::{memory_kib, processes},
};
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::try_join_all;
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan},
    wait,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);
/// How much the memory of agent and control plane may grow by a flood of some hundred MiB.
const FLOOD_MEMORY_KIB: u64 = 24 << 10;

async fn run(world: &World, body: Value) -> Result<Value> {
    world.api.post(&world.path("exec"), body).await?.data()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_to_its_end_and_takes_everything_along() -> Result<()> {
    let mut world = World::new().await?;
    let exec = world.path("exec");

    // How it ended and what it wrote.
    let script = "echo out; echo err >&2; echo $A-$PWD-$(id -u); exit 3";
    let body = json!({ "argv": ["sh", "-c", script], "env": { "A": "b" }, "cwd": "/tmp" });
    let done = run(&world, body).await?;
    assert_eq!((&done["exit_code"], &done["signal"]), (&json!(3), &Value::Null), "{done}");
    assert_eq!(done["stdout"]["data"], "out\nb-/tmp-0\n", "{done}");
    assert_eq!(done["stderr"]["data"], "err\n", "{done}");
    let done = run(&world, json!({ "command": "kill -15 $$" })).await?;
    assert_eq!((&done["exit_code"], &done["signal"]), (&Value::Null, &json!(15)), "{done}");
    let done = run(&world, json!({ "argv": "printf '\\377\\000'" })).await?;
    assert_eq!((&done["stdout"]["data"], &done["stdout"]["encoding"]), (&json!("/wA="), &json!("base64")), "{done}");

    // Megabytes in and out.
    let bytes: Vec<u8> = (0..8u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let body = json!({ "argv": ["sha256sum"], "stdin_base64": STANDARD.encode(&bytes) });
    let hashed = run(&world, body).await?;
    let path = world.cluster.folder().join("input");
    std::fs::write(&path, &bytes)?;
    let here = std::process::Command::new("sha256sum").arg(&path).output()?;
    let sum = |text: &str| text.split_whitespace().next().map(str::to_owned);
    assert_eq!(sum(hashed["stdout"]["data"].as_str().context("text")?), sum(&String::from_utf8(here.stdout)?));
    let body =
        json!({ "argv": ["cat"], "stdin_base64": STANDARD.encode(&bytes[..3 << 20]), "max_output_bytes": 4 << 20 });
    let echoed = run(&world, body).await?;
    assert!(echoed["stdout"]["data"] == STANDARD.encode(&bytes[..3 << 20]), "what comes back is what was sent");

    // A flood is bounded, and its process ends at its time with everything that it started.
    let agent = world.cluster.servers[0].agent_pid().context("agent")?;
    let plane = world.cluster.control_plane.pid().context("control plane")?;
    let before = (memory_kib(agent)?, memory_kib(plane)?);
    let flood = json!({ "argv": ["sh", "-c", "sleep 4241 & (sleep 4241 &); yes"], "timeout": 3 });
    let floods = try_join_all((0..4).map(|_| run(&world, flood.clone()))).await?;
    for done in floods {
        assert_eq!((&done["timed_out"], &done["signal"]), (&json!(true), &json!(9)), "{}", done["exit_code"]);
        assert_eq!((&done["stdout"]["bytes"], &done["stdout"]["truncated"]), (&json!(1 << 20), &json!(true)));
        assert!(done["stdout"]["dropped_bytes"].as_u64() > Some(0));
    }
    let after = (memory_kib(agent)?, memory_kib(plane)?);
    println!(
        "memory before and after four floods: agent {} {} KiB, control plane {} {} KiB",
        before.0, after.0, before.1, after.1
    );
    assert!(after.0 < before.0 + FLOOD_MEMORY_KIB, "agent {before:?} {after:?}");
    gone(&["sleep", "4241"]).await?;

    // Many at once.
    let started = Instant::now();
    let many = (0..50).map(|number| run(&world, json!({ "argv": ["sh", "-c", format!("sleep 0.5; echo {number}")] })));
    for (number, done) in try_join_all(many).await?.into_iter().enumerate() {
        assert_eq!(done["stdout"]["data"], format!("{number}\n"), "{done}");
    }
    println!("50 at once took {:?}", started.elapsed());

    // A client that goes away ends it.
    let (api, path) = (world.api.clone(), exec.clone());
    let waiting = tokio::spawn(async move { api.post(&path, json!({ "argv": ["sleep", "4242"] })).await });
    running(&["sleep", "4242"]).await?;
    waiting.abort();
    gone(&["sleep", "4242"]).await?;

    // So does the end of the agent, before there is another.
    let (api, path) = (world.api.clone(), exec.clone());
    let waiting =
        tokio::spawn(async move { api.post(&path, json!({ "argv": ["sh", "-c", "sleep 4243 & wait"] })).await });
    running(&["sleep", "4243"]).await?;
    world.cluster.servers[0].kill_agent()?;
    gone(&["sleep", "4243"]).await?;
    world.cluster.servers[0].start()?;
    // The new agent's link takes the place of the old one, which nobody has closed.
    waiting.await??.expect_refusal(503, "UNAVAILABLE")?;
    world.cluster.wait_online(&world.cluster.servers[0], true).await?;
    assert_eq!(run(&world, json!({ "argv": ["echo", "again"] })).await?["stdout"]["data"], "again\n");

    // It took place, and what it was told is not written down.
    let events = world.api.get("/api/v1/events?event_type=activity.logged&limit=500").await?.data()?;
    let all = events["events"].as_array().context("events")?;
    let of_exec: Vec<&Value> = all.iter().filter(|event| event["payload"]["action"] == "container.exec").collect();
    assert!(of_exec.len() > 50, "{} events", of_exec.len());
    assert!(of_exec.iter().all(|event| !event.to_string().contains("4242")), "arguments are written down");
    world.cluster.check_logs()
}

async fn running(argv: &[&str]) -> Result<()> {
    wait::until("it runs", DEADLINE, async || Ok((!processes(argv).is_empty()).then_some(()))).await
}

async fn gone(argv: &[&str]) -> Result<()> {
    wait::until("it is gone", DEADLINE, async || Ok(processes(argv).is_empty().then_some(()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_image_is_worked_in_like_any_other() -> Result<()> {
    let cluster = Cluster::start(Plan { images: vec!["debian/12"], ..Plan::default() }).await?;
    let api: &Api = &cluster.tenant;
    let project = api.project("system").await?;
    let container = api.container(&project, "debian/12", json!({ "name": "system" })).await?;
    api.operate(&container, "start").await?;
    let path = format!("/api/v1/containers/{container}/exec");
    let run = async |body: Value| api.post(&path, body).await?.data();
    wait::until("systemd is up", Duration::from_secs(60), async || {
        let state = run(json!({ "argv": ["systemctl", "is-system-running"] })).await?;
        let state = state["stdout"]["data"].as_str().unwrap_or_default().trim().to_owned();
        Ok(matches!(state.as_str(), "running" | "degraded").then_some(()))
    })
    .await?;
    let done = run(json!({ "argv": ["id"], "user": "daemon" })).await?;
    assert!(done["stdout"]["data"].as_str().unwrap().starts_with("uid=1(daemon) gid=1(daemon)"), "{done}");
    // What systemd was asked to run is systemd's, and stays.
    run(json!({ "argv": ["systemd-run", "--unit=stays", "sleep", "4244"] })).await?;
    let done = run(json!({ "argv": ["systemctl", "is-active", "stays"] })).await?;
    assert_eq!(done["stdout"]["data"], "active\n", "{done}");
    let done = run(json!({ "argv": ["sh", "-c", "sleep 4245 & sleep 4245"], "timeout": 1 })).await?;
    assert_eq!(done["timed_out"], true, "{done}");
    gone(&["sleep", "4245"]).await?;
    let done = run(json!({ "argv": ["cat", "/proc/self/cgroup"] })).await?;
    assert!(done["stdout"]["data"].as_str().unwrap().contains("hoody-exec-"), "{done}");
    api.operate(&container, "force-stop").await?;
    api.wait_status(&container, "stopped").await?;
    assert_eq!(hoody_tests::traces::processes_in(&container)?, Vec::<i32>::new());
    Ok(())
}
