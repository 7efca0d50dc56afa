//! Who may not, and when it cannot be done.

use crate::{World, client::Terminal};
use anyhow::{Context, Result};
use hoody_tests::wait;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn strangers_see_nothing_and_every_state_has_its_answer() -> Result<()> {
    let world = World::new().await?;
    let (exec, terminal, terminals, logs) =
        (world.path("exec"), world.path("terminal"), world.path("terminals"), world.path("logs"));
    let body = json!({ "argv": ["true"] });

    // Another tenant.
    let stranger = world.cluster.second_tenant("stranger").await?;
    stranger.post(&exec, body.clone()).await?.expect(404)?;
    stranger.get(&terminals).await?.expect(404)?;
    stranger.get(&logs).await?.expect(404)?;
    let token = stranger.token.clone().context("token")?;
    assert_eq!(Terminal::try_open(&world.cluster, &token, &terminal).await?.err(), Some(404));
    // Members, by their level.
    let user = stranger.get("/api/v1/users/auth/me").await?.data()?["id"].clone();
    let given = json!({ "user_id": user, "permission_level": "read" });
    world.api.post(&format!("/api/v1/projects/{}/permissions", world.project), given).await?.data()?;
    stranger.post(&exec, body.clone()).await?.expect(403)?;
    stranger.get(&terminals).await?.expect(403)?;
    stranger.get(&logs).await?.expect(200)?;
    assert_eq!(Terminal::try_open(&world.cluster, &token, &terminal).await?.err(), Some(403));
    // Tokens, by their permissions.
    let token = async |actions: serde_json::Value| -> Result<_> {
        let permissions = json!({ "containers": { "read": true, "actions": actions } });
        let asked = json!({ "alias": format!("t{}", rand::random::<u32>()), "permissions": permissions });
        let made = world.api.post("/api/v1/auth/tokens", asked).await?.data()?;
        let secret = made["token"].as_str().or(made["auth_token"]["token"].as_str()).context("a token")?.to_owned();
        Ok(world.api.with_token(Some(&secret)))
    };
    let reading = token(json!({ "logs": true })).await?;
    reading.post(&exec, body.clone()).await?.expect(403)?;
    reading.get(&terminals).await?.expect(403)?;
    reading.get(&logs).await?.expect(200)?;
    let secret = reading.token.clone().context("token")?;
    assert_eq!(Terminal::try_open(&world.cluster, &secret, &terminal).await?.err(), Some(403));
    let running = token(json!({ "exec": true })).await?;
    running.post(&exec, body.clone()).await?.expect(200)?;
    running.get(&logs).await?.expect(403)?;
    assert_eq!(Terminal::try_open(&world.cluster, "", &terminal).await?.err(), Some(401));

    // What is no command, and what nobody can start.
    for (field, bad) in [
        ("argv", json!({ "argv": [] })),
        ("cwd", json!({ "argv": ["true"], "cwd": "/tmp/../etc" })),
        ("user", json!({ "argv": ["true"], "user": "../../etc/passwd" })),
        ("env", json!({ "argv": ["true"], "env": { "A=B": "" } })),
        ("timeout", json!({ "argv": ["true"], "timeout": 601 })),
        ("max_output_bytes", json!({ "argv": ["true"], "max_output_bytes": 1 << 30 })),
        ("stdin_base64", json!({ "argv": ["true"], "stdin_base64": "?" })),
    ] {
        world.api.post(&exec, bad).await?.expect_detail(400, field)?;
    }
    world.api.get(&terminal).await?.expect_detail(400, "Upgrade")?;
    world.api.get(&format!("{logs}?tail=x")).await?.expect_detail(400, "tail")?;
    for cannot in [
        json!({ "argv": ["no-such-program"] }),
        json!({ "argv": ["true"], "cwd": "/no/such" }),
        json!({ "argv": ["true"], "user": "nobody-here" }),
        json!({ "argv": ["true"], "user": "70000" }),
    ] {
        world.api.post(&exec, cannot).await?.expect_refusal(422, "UNPROCESSABLE")?;
    }
    // Accounts are the container's own, also where it plants a link to the server's.
    let plant = json!({ "argv": "mv /etc/passwd /etc/passwd.old; ln -s /proc/1/root/../../../etc/passwd /etc/passwd" });
    assert_eq!(world.api.post(&exec, plant).await?.data()?["exit_code"], 0);
    let as_daemon = json!({ "argv": ["true"], "user": "daemon" });
    world.api.post(&exec, as_daemon).await?.expect_refusal(422, "UNPROCESSABLE")?;
    let as_number = json!({ "argv": ["id", "-u"], "user": "1000:1000" });
    assert_eq!(world.api.post(&exec, as_number).await?.data()?["stdout"]["data"], "1000\n");

    // Paused, stopped, deleted in the middle.
    world.api.operate(&world.container, "pause").await?;
    world.api.post(&exec, body.clone()).await?.expect_refusal(409, "CONFLICT")?;
    world.api.operate(&world.container, "resume").await?;
    world.api.operate(&world.container, "stop").await?;
    world.api.wait_status(&world.container, "stopped").await?;
    world.api.post(&exec, body.clone()).await?.expect_refusal(409, "CONFLICT")?;
    world.api.get(&logs).await?.expect(200)?;
    world.api.operate(&world.container, "start").await?;
    world.api.wait_status(&world.container, "running").await?;
    let (api, path) = (world.api.clone(), exec.clone());
    let storm = tokio::spawn(async move {
        // Every answer is one of these, until the container is gone.
        loop {
            let answer = api.post(&path, json!({ "argv": ["sleep", "0.05"] })).await?;
            match answer.status {
                200 | 409 => {}
                404 => return Ok(()),
                other => anyhow::bail!("{other}: {}", answer.body),
            }
        }
    });
    world.api.delete(&format!("/api/v1/containers/{}", world.container), None).await?.data()?;
    tokio::time::timeout(Duration::from_secs(60), storm).await???;
    wait::until("nothing is left", Duration::from_secs(30), async || {
        let left = hoody_tests::traces::of_container(&world.cluster.servers[0], &world.container)?;
        Ok(left.is_empty().then_some(()))
    })
    .await?;
    let kept = world.cluster.servers[0].folder.join("state/logs");
    assert_eq!(std::fs::read_dir(kept)?.count(), 0, "what it wrote goes with it");
    Ok(())
}
