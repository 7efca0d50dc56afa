//! Each of two servers is linked to another control plane, and knows no other: everything that needs a node at once, or
//! both of them, is asked of the one that does not have the link.

use super::DEADLINE;
use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, ControlPlane, Database, Plan, TENANT},
    postgres::FreshDatabase,
    wait,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt, time::Duration};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

/// Writes into its log what it finds in a file.
const INIT: &str = "#!/bin/sh
trap 'exit 0' TERM
while true; do test -e /say && cat /say && rm /say; sleep 0.1; done
";

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_by_either_until_the_one_with_the_link_dies() -> Result<()> {
    let database = FreshDatabase::create()?;
    let plan =
        Plan { servers: 2, database: Database::Postgres(database.url()), replicas: 1, spread: true, ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = through(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())?;
    drop(cluster);
    Ok(())
}

async fn through(cluster: &mut Cluster) -> Result<()> {
    for plane in [&cluster.control_plane, &cluster.replicas[0]] {
        ensure!(super::links(plane)? == 1, "a server each");
    }
    // The container is on the server of the first; everything is asked of the second.
    let two = Api::login(cluster.replicas[0].base_url(), TENANT, &cluster.password).await?;
    let project = two.project("through").await?;
    let body = json!({ "name": "web", "autostart": true, "server_id": cluster.servers[0].id,
        "specs": { "cpu_cores": 0.2, "storage_mb": 256, "memory_mb": 64 } });
    let container = two.container(&project, "busybox", body).await?;
    let init = cluster.servers[0].pool().join("containers").join(&container).join("bin/init");
    std::fs::write(&init, INIT)?;
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755))?;
    two.operate(&container, "restart").await?;
    two.wait_status(&container, "running").await?;
    let path = format!("/api/v1/containers/{container}");

    conversations(&two, &cluster.replicas[0], &path).await?;
    measurements(cluster, &two, &project, &path).await?;
    archive(cluster, &two, &project, &path).await?;
    file_systems(cluster, &two, &container).await?;

    // The replica with the link dies: what runs through it ends, and the server is as one that is offline.
    let waiting = tokio::spawn({
        let (two, path) = (two.clone(), path.clone());
        async move {
            try_exec(&two, &path, json!({ "argv": ["sh", "-c", "touch /begun; sleep 300"], "timeout": 400 })).await
        }
    });
    wait::until("the process runs", DEADLINE, async || {
        Ok(cluster.servers[0].exec(&container, &["ls", "/begun"]).is_ok().then_some(()))
    })
    .await?;
    cluster.control_plane.kill()?;
    let answer = tokio::time::timeout(DEADLINE, waiting).await.context("it hangs")???;
    ensure!(answer.0 == 503, "{answer:?}");
    let refused = tokio::time::timeout(DEADLINE, try_exec(&two, &path, json!({ "argv": ["true"] })));
    let refused = refused.await.context("it hangs")??;
    ensure!(refused.0 == 503, "{refused:?}");

    // It is back, under another id and at the same address, and so is the server.
    cluster.control_plane.start().await?;
    let back = wait::until("the server is reached again", DEADLINE, async || {
        let (status, answer) = try_exec(&two, &path, json!({ "argv": ["echo", "back"] })).await?;
        Ok((status == 200).then_some(answer))
    });
    ensure!(back.await?["stdout"]["data"] == "back\n");
    Ok(())
}

/// What a program answers that must run, and end well.
async fn run(api: &Api, path: &str, argv: &[&str]) -> Result<String> {
    let ended = exec(api, path, json!({ "argv": argv })).await?;
    ensure!(ended["exit_code"] == 0, "{ended}");
    Ok(ended["stdout"]["data"].as_str().context("output")?.to_owned())
}

/// What is answered where it must not be refused.
async fn exec(api: &Api, path: &str, body: Value) -> Result<Value> {
    let (status, ended) = try_exec(api, path, body).await?;
    ensure!(status == 200, "{status}: {ended}");
    Ok(ended)
}

/// The status, and what was answered.
async fn try_exec(api: &Api, path: &str, body: Value) -> Result<(u16, Value)> {
    let answer = api.post(&format!("{path}/exec"), body).await?;
    Ok((answer.status, if answer.status == 200 { answer.data()? } else { answer.body }))
}

async fn conversations(api: &Api, plane: &ControlPlane, path: &str) -> Result<()> {
    // More than all windows on the way hold, in both directions.
    let input = "0123456789abcdef".repeat(64 << 10);
    let body = json!({ "argv": ["sh", "-c", "cat; echo to-error >&2; exit 3"], "stdin": input,
        "max_output_bytes": 4 << 20 });
    let ended = exec(api, path, body).await?;
    ensure!(ended["exit_code"] == 3, "{}", ended["exit_code"]);
    ensure!(ended["stdout"]["data"] == input.as_str() && ended["stderr"]["data"] == "to-error\n", "output differs");

    let mut terminal = Terminal::open(api, plane, &format!("{path}/terminal?columns=90&rows=30")).await?;
    terminal.send("stty size; echo pass-$((40 + 2))\n").await?;
    terminal.until("pass-42").await?;
    ensure!(terminal.shown.contains("30 90"), "{}", terminal.shown);
    let listed = api.get(&format!("{path}/terminals")).await?.data()?;
    ensure!(listed["terminals"][0]["id"] == terminal.id.as_str(), "{listed}");
    api.delete(&format!("{path}/terminals/{}", terminal.id), None).await?.data()?;
    terminal.until_closed().await?;

    // A log that is followed: what is written meanwhile comes.
    let url = format!("{}{path}/logs?follow=true", plane.base_url());
    let token = api.token.clone().context("not logged in")?;
    let mut following = reqwest::Client::new().get(url).bearer_auth(token).send().await?.error_for_status()?;
    run(api, path, &["sh", "-c", "echo into-the-log > /written && mv /written /say"]).await?;
    let mut text = String::new();
    let read = async {
        while !text.contains("into-the-log") {
            let chunk = following.chunk().await?.context("the log ends")?;
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        anyhow::Ok(())
    };
    let read = tokio::time::timeout(DEADLINE, read).await;
    read.with_context(|| format!("only this is in the log: {text:?}"))??;
    let lines = api.get(&format!("{path}/logs?tail=10")).await?.data()?;
    ensure!(lines["logs"].to_string().contains("into-the-log"), "{lines}");
    Ok(())
}

async fn measurements(cluster: &Cluster, api: &Api, project: &str, path: &str) -> Result<()> {
    wait::until("measurements", DEADLINE, async || {
        let stats = api.get(&format!("{path}/stats")).await?.data()?;
        let of_project = api.get(&format!("/api/v1/projects/{project}/stats")).await?.data()?;
        let known = |stats: &Value| stats["memory"]["usage"].as_u64() > Some(0);
        let answered = of_project["summary"]["unanswered_servers"].as_array().is_some_and(Vec::is_empty);
        Ok((known(&stats) && known(&of_project["stats"][0]) && answered).then_some(()))
    })
    .await?;
    for server in &cluster.servers {
        let runtime = api.get(&format!("/api/v1/servers/{}/runtime", server.id)).await?.data()?;
        ensure!(runtime["mem"]["used_bytes"].as_u64() > Some(0), "{runtime}");
    }
    let seen = api.get(&format!("{path}?runtime=true")).await?.data()?;
    ensure!(seen.to_string().contains("\"process_count\""), "{seen}");
    Ok(())
}

async fn archive(cluster: &Cluster, api: &Api, project: &str, path: &str) -> Result<()> {
    run(api, path, &["sh", "-c", "head -c 3000000 /dev/urandom > /kept"]).await?;
    let kept = sum(api, path).await?;
    let url = format!("{}{path}/export", cluster.replicas[0].base_url());
    let token = api.token.clone().context("not logged in")?;
    let response = reqwest::Client::new().get(url).bearer_auth(token).timeout(DEADLINE).send().await?;
    ensure!(response.status() == 200, "{}: {}", response.status(), response.text().await?);
    let bytes = response.bytes().await?.to_vec();
    ensure!(bytes.len() > 3_000_000, "{} bytes", bytes.len());
    // Onto the other server, through the replica that does not have that one.
    let one = &cluster.tenant;
    let query = format!("?project_id={project}&name=imported&server_id={}", cluster.servers[1].id);
    let headers = [("content-type", "application/zstd")];
    let imported = one.send_bytes(Method::POST, &format!("/api/v1/containers/import{query}"), &headers, bytes).await?;
    let imported = imported.data()?["id"].as_str().context("an id")?.to_owned();
    one.wait_status(&imported, "running").await?;
    let there = sum(one, &format!("/api/v1/containers/{imported}")).await?;
    ensure!(kept == there, "{kept}, {there}");
    one.delete(&format!("/api/v1/containers/{imported}"), None).await?.data()?;
    Ok(())
}

/// The sum of the file that is carried about.
async fn sum(api: &Api, path: &str) -> Result<String> {
    run(api, path, &["sha256sum", "/kept"]).await
}

/// A copy from the one server to the other, and a sync of it.
async fn file_systems(cluster: &Cluster, api: &Api, container: &str) -> Result<()> {
    let body = json!({ "name": "copy", "target_server_id": cluster.servers[1].id });
    let copied = api.post(&format!("/api/v1/containers/{container}/copy"), body).await?.data()?;
    let copy = copied["id"].as_str().context("an id")?.to_owned();
    api.wait_status(&copy, "running").await?;
    let [path, of_copy] = [container, copy.as_str()].map(|id| format!("/api/v1/containers/{id}"));
    let before = sum(api, &path).await?;
    ensure!(before == sum(api, &of_copy).await?, "the copy differs");
    run(api, &path, &["sh", "-c", "echo changed > /kept"]).await?;
    let after = sum(api, &path).await?;
    ensure!(before != after, "there is nothing to sync");
    api.post(&format!("/api/v1/containers/{copy}/sync"), json!({})).await?.data()?;
    wait::until("the sync", DEADLINE, async || {
        let logs = api.get(&format!("/api/v1/containers/{copy}/status-logs?limit=100")).await?.data()?.to_string();
        ensure!(!logs.contains("\"sync\":\"failed\""), "{logs}");
        Ok(logs.contains("\"sync\":\"succeeded\"").then_some(()))
    })
    .await?;
    api.wait_status(&copy, "running").await?;
    ensure!(after == sum(api, &of_copy).await?, "the synced copy differs");
    api.delete(&format!("/api/v1/containers/{copy}"), None).await?.data()?;
    Ok(())
}

/// Somebody at a terminal.
struct Terminal {
    socket: WebSocketStream<TcpStream>,
    id: String,
    shown: String,
}

impl Terminal {
    async fn open(api: &Api, plane: &ControlPlane, path: &str) -> Result<Self> {
        let address = plane.base_url().trim_start_matches("http://").to_owned();
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        let token = api.token.clone().context("not logged in")?;
        let protocols = HeaderValue::try_from(format!("hoody.terminal, bearer.{token}"))?;
        request.headers_mut().insert("sec-websocket-protocol", protocols);
        let (socket, _) = client_async(request, TcpStream::connect(&address).await?).await?;
        let mut this = Self { socket, id: String::new(), shown: String::new() };
        let Some(Message::Text(ready)) = this.next().await? else { bail!("not ready first") };
        let ready: Value = serde_json::from_str(&ready)?;
        this.id = ready["terminal_id"].as_str().context("an id")?.to_owned();
        Ok(this)
    }

    async fn next(&mut self) -> Result<Option<Message>> {
        let message = tokio::time::timeout(Duration::from_secs(30), self.socket.next()).await;
        Ok(message.with_context(|| format!("nothing comes after {:?}", self.shown))?.transpose().unwrap_or(None))
    }

    async fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.socket.send(Message::binary(text.as_bytes().to_vec())).await?)
    }

    async fn until(&mut self, text: &str) -> Result<()> {
        while !self.shown.contains(text) {
            match self.next().await? {
                Some(Message::Binary(bytes)) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Some(_) => {}
                None => bail!("closed behind {:?}", self.shown),
            }
        }
        Ok(())
    }

    async fn until_closed(&mut self) -> Result<()> {
        while !matches!(self.next().await?, None | Some(Message::Close(_))) {}
        Ok(())
    }
}
