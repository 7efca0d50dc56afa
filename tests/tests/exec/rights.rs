//! Connections that outlive their request end when what let them in does: at once, not at the next look from time to
//! time.

use crate::{
    World,
    client::{Terminal, processes},
    logs::Followed,
};
use anyhow::{Context, Result, bail};
use hoody_tests::{api::Api, wait};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Less than the pause between two looks that are not asked for (30 s).
const AT_ONCE: Duration = Duration::from_secs(12);

struct Token {
    id: String,
    secret: String,
}

async fn token(api: &Api, alias: &str) -> Result<Token> {
    let permissions = json!({ "containers": { "read": true, "actions": { "exec": true, "logs": true } } });
    let made = api.post("/api/v1/auth/tokens", json!({ "alias": alias, "permissions": permissions })).await?.data()?;
    let found = if made["auth_token"].is_object() { &made["auth_token"] } else { &made };
    let secret = made["token"].as_str().or(found["token"].as_str()).context("a token")?.to_owned();
    Ok(Token { id: found["id"].as_str().context("an id")?.to_owned(), secret })
}

/// The connection is told that it is no longer allowed.
async fn is_sent_away(terminal: &mut Terminal) -> Result<()> {
    let told = timeout(AT_ONCE, terminal.told()).await.context("it goes on")??;
    assert_eq!((&told["type"], &told["reason"]), (&json!("end"), &json!("unauthorized")), "{told}");
    Ok(())
}

async fn follow_is_sent_away(followed: &mut Followed) -> Result<()> {
    let end = async {
        loop {
            let event = followed.next().await?;
            if event.name == "end" {
                return Ok::<Value, anyhow::Error>(event.data);
            }
        }
    };
    let end = timeout(AT_ONCE, end).await.context("it goes on")??;
    assert_eq!(end["reason"], "unauthorized", "{end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_with_the_credential_or_the_right_that_let_them_in() -> Result<()> {
    let world = World::new().await?;
    let (path, logs) = (world.path("terminal"), format!("{}?follow=true&tail=0", world.path("logs")));
    let owner = world.api.token.clone().context("token")?;

    // An auth token that is deleted.
    let one = token(&world.api, "one").await?;
    let mut terminal = Terminal::open(&world.cluster, &one.secret, &path).await?;
    terminal.send("echo at-$((40+2)); sleep 4261\n").await?;
    terminal.until("at-42").await?;
    let mut followed = Followed::open_as(&world.cluster, &one.secret, &logs, None).await?;
    world.api.delete(&format!("/api/v1/auth/tokens/{}", one.id), None).await?.expect(200)?;
    is_sent_away(&mut terminal).await?;
    follow_is_sent_away(&mut followed).await?;
    // The terminal is its user's, who may come back otherwise.
    assert!(!processes(&["sleep", "4261"]).is_empty(), "the connection ends, and the terminal does not");
    let again = format!("{path}?terminal_id={}&after={}", terminal.id, terminal.position);
    let mut terminal = Terminal::open(&world.cluster, &owner, &again).await?;
    terminal.send("\x03").await?;
    terminal.send("echo at-$((42+1))\n").await?;
    terminal.until("at-43").await?;
    world.api.delete(&format!("{}/{}", world.path("terminals"), terminal.id), None).await?.expect(200)?;

    // One that loses the permission, while its client reads nothing of a flood.
    let two = token(&world.api, "two").await?;
    let mut flooded = Terminal::open(&world.cluster, &two.secret, &path).await?;
    flooded.send("yes flood-4262\n").await?;
    flooded.until("flood-4262").await?;
    let narrowed = json!({ "permissions": { "containers": { "read": true } } });
    world.api.put(&format!("/api/v1/auth/tokens/{}", two.id), narrowed).await?.expect(200)?;
    wait::until("nobody is connected any more", AT_ONCE, async || {
        let list = world.api.get(&world.path("terminals")).await?.data()?;
        let all = list["terminals"].as_array().context("a list")?;
        let mine = all.iter().find(|it| it["id"] == flooded.id.as_str()).context("the terminal goes on")?;
        Ok((mine["connected"] == false).then_some(()))
    })
    .await?;
    world.api.delete(&format!("{}/{}", world.path("terminals"), flooded.id), None).await?.expect(200)?;

    // A member whose permission is taken back; the owner's own goes on.
    let member = world.cluster.second_tenant("member").await?;
    let user = member.get("/api/v1/users/auth/me").await?.data()?["id"].clone();
    let given = json!({ "user_id": user, "permission_level": "edit" });
    let permissions = format!("/api/v1/projects/{}/permissions", world.project);
    let given = world.api.post(&permissions, given).await?.data()?;
    let permission = given["id"].as_str().or(given["permission"]["id"].as_str()).context("an id")?.to_owned();
    let of_member = member.token.clone().context("token")?;
    let mut theirs = Terminal::open(&world.cluster, &of_member, &path).await?;
    let mut followed = Followed::open_as(&world.cluster, &of_member, &logs, None).await?;
    let mut ours = Terminal::open(&world.cluster, &owner, &path).await?;
    world.api.delete(&format!("{permissions}/{permission}"), None).await?.expect(200)?;
    is_sent_away(&mut theirs).await?;
    follow_is_sent_away(&mut followed).await?;
    ours.send("echo at-$((43+1))\n").await?;
    ours.until("at-44").await?;

    // A session that is logged out.
    world.api.post("/api/v1/users/auth/logout", json!({})).await?.expect(200)?;
    is_sent_away(&mut ours).await?;
    match Terminal::try_open(&world.cluster, &owner, &path).await? {
        Err(401) => world.cluster.check_logs(),
        Err(status) => bail!("answered {status}"),
        Ok(_) => bail!("opened after the logout"),
    }
}
