//! What ends processes and terminals, and clients that are slower than what they look at.

use crate::{
    World,
    client::{Came, PATIENCE, Terminal, memory_kib, processes},
    logs::Followed,
};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use hoody_tests::{cluster::Plan, wait};
use serde_json::{Value, json};

/// Bytes that are shown to somebody who does not look.
const FLOOD_BYTES: usize = 12_000_000;
/// How much the memory of agent and control plane may grow by it.
const FLOOD_MEMORY_KIB: u64 = 8 << 10;

async fn running(argv: &[&str]) -> Result<()> {
    wait::until("it runs", PATIENCE, async || Ok((!processes(argv).is_empty()).then_some(()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_its_program_and_nothing_else() -> Result<()> {
    let world = World::new().await?;
    let token = world.api.token.clone().context("token")?;
    let path = world.path("terminal");
    let agent = world.cluster.servers[0].agent_pid().context("agent")?;
    let plane = world.cluster.control_plane.pid().context("control plane")?;
    let echo = async || {
        let done = world.api.post(&world.path("exec"), json!({ "argv": ["echo", "here"] })).await?.data()?;
        assert_eq!(done["stdout"]["data"], "here\n", "{done}");
        Ok::<(), anyhow::Error>(())
    };
    echo().await?;

    let mut slow = Terminal::open(&world.cluster, &token, &format!("{path}?acknowledge=true")).await?;
    let before = (memory_kib(agent)?, memory_kib(plane)?);
    let size = FLOOD_BYTES.to_string();
    // Q, which nothing else says: the line is echoed, by the shell perhaps more than once.
    let flood = format!(
        "stty raw -echo; echo go-$((1+1)); head -c {size} /dev/zero | tr '\\0' '\\121'; echo the-$((50+2))-end\n"
    );
    slow.send(&flood).await?;
    slow.until("go-2").await?;
    // Nobody else waits, however long.
    for _ in 0..20 {
        echo().await?;
    }
    let after = (memory_kib(agent)?, memory_kib(plane)?);
    println!(
        "memory with a client that does not read: agent {} {}, control plane {} {} KiB",
        before.0, after.0, before.1, after.1
    );
    assert!(after.0 < before.0 + FLOOD_MEMORY_KIB && after.1 < before.1 + FLOOD_MEMORY_KIB, "{before:?} {after:?}");

    // Who comes back gets all of it, which is more than anything in between keeps: its program has waited.
    let (id, position, seen) = (slow.id.clone(), slow.position, slow.shown.clone());
    let mut quick =
        Terminal::open(&world.cluster, &token, &format!("{path}?terminal_id={id}&after={position}")).await?;
    assert_eq!(quick.from, position, "nothing is lost");
    let mut ended = false;
    while !ended {
        match quick.next().await? {
            Came::Output => {}
            other => bail!("{other:?}"),
        }
        let tail = &quick.shown[quick.shown.len().saturating_sub(64)..];
        ended = String::from_utf8_lossy(tail).contains("the-52-end");
    }
    let all = seen.iter().chain(&quick.shown).filter(|byte| **byte == b'Q').count();
    assert_eq!(all, FLOOD_BYTES, "bytes");
    drop(slow);
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_end_when_nobody_uses_them_and_at_an_age() -> Result<()> {
    let settings = "terminal_idle_s = 2\nterminal_age_s = 8\n".to_owned();
    let world = World::with(Plan { agent_settings: settings, ..Plan::default() }).await?;
    let token = world.api.token.clone().context("token")?;
    let path = world.path("terminal");
    let mut idle = Terminal::open(&world.cluster, &token, &path).await?;
    let mut busy = Terminal::open(&world.cluster, &token, &path).await?;
    busy.send("sleep 4263 & while true; do echo tick; sleep 0.5; done\n").await?;
    for (terminal, reason) in [(&mut idle, "idle"), (&mut busy, "too_old")] {
        let told = terminal.told().await?;
        assert_eq!((&told["type"], &told["reason"]), (&json!("exit"), &json!(reason)), "{told}");
    }
    wait::until("nothing of it is left", PATIENCE, async || Ok(processes(&["sleep", "4263"]).is_empty().then_some(())))
        .await?;
    assert_eq!(world.api.get(&world.path("terminals")).await?.data()?["terminals"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_ends_with_its_container_and_says_so() -> Result<()> {
    let world = World::new().await?;
    let token = world.api.token.clone().context("token")?;
    let begin = |seconds: &'static str| {
        let (api, path) = (world.api.clone(), world.path("exec"));
        tokio::spawn(async move { api.post(&path, json!({ "argv": ["sleep", seconds] })).await })
    };
    let killed = |done: &Value| assert_eq!((&done["signal"], &done["exit_code"]), (&json!(9), &Value::Null), "{done}");

    let waiting = begin("4264");
    running(&["sleep", "4264"]).await?;
    let mut terminal = Terminal::open(&world.cluster, &token, &world.path("terminal")).await?;
    terminal.send("sleep 4265\n").await?;
    running(&["sleep", "4265"]).await?;
    world.api.operate(&world.container, "force-stop").await?;
    killed(&waiting.await??.data()?);
    let told = terminal.told().await?;
    assert_eq!(told["type"], "exit", "{told}");
    assert!(processes(&["sleep", "4265"]).is_empty());

    world.api.wait_status(&world.container, "stopped").await?;
    world.api.operate(&world.container, "start").await?;
    world.api.wait_status(&world.container, "running").await?;
    let waiting = begin("4266");
    running(&["sleep", "4266"]).await?;
    let mut terminal = Terminal::open(&world.cluster, &token, &world.path("terminal")).await?;
    let logs = format!("{}?follow=true&tail=0", world.path("logs"));
    let mut followed = Followed::open_as(&world.cluster, &token, &logs, None).await?;

    // More input than is taken is refused, and less of it than that is not cut off.
    let too_much = "x".repeat((16 << 20) + 1);
    let body = json!({ "argv": ["wc", "-c"], "stdin": too_much });
    world.api.post(&world.path("exec"), body).await?.expect_detail(400, "stdin")?;
    let body = json!({ "argv": ["wc", "-c"], "stdin_base64": STANDARD.encode(&too_much) });
    world.api.post(&world.path("exec"), body).await?.expect_detail(400, "stdin_base64")?;
    let body = json!({ "argv": ["wc", "-c"], "stdin": &too_much[1..] });
    let done = world.api.post(&world.path("exec"), body).await?.data()?;
    assert_eq!(done["stdout"]["data"].as_str().map(str::trim), Some("16777216"), "{done}");
    // Nor is a process that never reads in the way of its end.
    let body = json!({ "argv": ["sleep", "0.2"], "stdin": &too_much[1..] });
    assert_eq!(world.api.post(&world.path("exec"), body).await?.data()?["exit_code"], 0);

    world.api.delete(&format!("/api/v1/containers/{}", world.container), None).await?.data()?;
    killed(&waiting.await??.data()?);
    assert_eq!(terminal.told().await?["type"], "exit");
    loop {
        let event = followed.next().await?;
        if event.name == "end" {
            assert_eq!(event.data["reason"], "end", "{event:?}");
            break;
        }
    }
    world.cluster.check_logs()
}
