//! What a container wrote, as one answer and followed, across restarts and the log's starting over.

use crate::client::PATIENCE;
use anyhow::{Context, Result, bail};
use hoody_tests::{
    cluster::{Cluster, Plan, run},
    image, wait,
};
use serde_json::{Value, json};
use std::{process::Command, time::Duration};

/// Writes numbered lines, some of them on standard error too (between the two there is no order), for as long as it runs; numbers go on over restarts.
const INIT: &str = "#!/bin/sh\ntrap 'exit 0' TERM\ni=$(cat /count 2>/dev/null || echo 0)\nwhile true; do\n  n=0\n  while test $n -lt 50; do\n    \
    echo line $i of the log; if test $((i%10)) = 3; then echo line $i of the log >&2; fi\n    \
    i=$((i+1)); n=$((n+1))\n  done\n  echo $i > /count.new; mv /count.new /count\n  sleep 0.05\ndone\n";

pub(crate) struct Followed {
    response: reqwest::Response,
    text: String,
}

/// One server-sent event: its name, id and data.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    id: String,
    pub(crate) data: Value,
}

impl Followed {
    async fn open(cluster: &Cluster, path: &str, last_event_id: Option<&str>) -> Result<Self> {
        Self::open_as(cluster, cluster.tenant.token.as_deref().context("token")?, path, last_event_id).await
    }

    pub(crate) async fn open_as(
        cluster: &Cluster,
        token: &str,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Self> {
        let client = reqwest::Client::new();
        let mut request = client.get(format!("{}{path}", cluster.control_plane.base_url())).bearer_auth(token);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await?;
        if response.status() != 200 {
            bail!("{path} answered {}", response.status());
        }
        Ok(Self { response, text: String::new() })
    }

    pub(crate) async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    let prefix = format!("{name}:");
                    event.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().trim().to_owned()
                };
                let data = field("data");
                if !data.is_empty() {
                    return Ok(Event { name: field("event"), id: field("id"), data: serde_json::from_str(&data)? });
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await??;
            self.text.push_str(std::str::from_utf8(&chunk.context("the stream ended")?)?);
        }
    }
}

fn number(line: &Value) -> Result<u64> {
    let message = line["message"].as_str().context("message")?;
    message.split(' ').nth(1).and_then(|number| number.parse().ok()).with_context(|| format!("{line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_and_followed_without_a_hole() -> Result<()> {
    let plan = Plan { agent_settings: "log_bytes_max = 131072\n".into(), ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let folder = tempfile::tempdir()?;
    let (root, archive) = (folder.path().join("root"), folder.path().join("writer.tar"));
    std::fs::create_dir(&root)?;
    run(Command::new("tar").arg("-xpf").arg(image::archive("busybox")?).arg("-C").arg(&root))?;
    let init = root.join("bin/init");
    std::fs::write(&init, INIT)?;
    run(Command::new("chmod").arg("755").arg(&init))?;
    run(Command::new("tar").args(["--numeric-owner", "-cpf"]).arg(&archive).arg("-C").arg(&root).arg("."))?;
    cluster.control_plane.import_image("writer", &archive)?;
    let api = cluster.tenant.clone();
    let project = api.project("logs").await?;
    let container = api.container(&project, "writer", json!({ "name": "writer" })).await?;
    let path = format!("/api/v1/containers/{container}/logs");
    assert_eq!(api.get(&path).await?.data()?["logs"], json!([]), "it never ran");
    api.operate(&container, "start").await?;

    // One answer.
    let tail = wait::until("it wrote", PATIENCE, async || {
        let page = api.get(&format!("{path}?tail=5&stream=stdout")).await?.data()?;
        Ok((page["logs"].as_array().map(Vec::len) == Some(5)).then_some(page))
    })
    .await?;
    let lines = tail["logs"].as_array().context("lines")?;
    for (first, second) in lines.iter().zip(&lines[1..]) {
        assert_eq!(number(first)? + 1, number(second)?);
    }
    assert!(lines[0]["timestamp"].as_str().is_some_and(|at| at.starts_with("20") && at.ends_with('Z')), "{tail}");
    let errors = wait::until("it wrote errors", PATIENCE, async || {
        let page = api.get(&format!("{path}?stream=stderr&tail=3&timestamps=false")).await?.data()?;
        Ok((page["logs"].as_array().map(Vec::len) == Some(3)).then_some(page))
    })
    .await?;
    for line in errors["logs"].as_array().context("lines")? {
        assert_eq!((number(line)? % 10, &line["stream"], &line["timestamp"]), (3, &json!("stderr"), &Value::Null));
    }
    let after = tail["position"].as_str().context("position")?;
    let next = wait::until("it wrote on", PATIENCE, async || {
        let page = api.get(&format!("{path}?after={after}&stream=stdout")).await?.data()?;
        Ok((page["logs"] != json!([])).then_some(page))
    })
    .await?;
    assert_eq!(number(&next["logs"][0])?, number(&lines[4])? + 1, "exactly behind the last one");
    let tomorrow = "2999-01-01";
    assert_eq!(api.get(&format!("{path}?since={tomorrow}")).await?.data()?["logs"], json!([]));

    // Followed: over the log's starting over, a broken connection, a restart of the container and of the agent.
    let mut followed = Followed::open(&cluster, &format!("{path}?follow=true&tail=1&stream=stdout"), None).await?;
    let first = followed.next().await?;
    let (mut last, mut id) = (number(&first.data)?, first.id);
    let mut breaks = 0;
    let part = |id: &str| id.split('-').next().unwrap_or_default().to_owned();
    let mut parts = vec![part(&id)];
    while parts.len() < 5 || breaks < 4 {
        let event = match followed.next().await {
            Ok(event) if event.name.is_empty() => event,
            Ok(event) if event.name == "end" => {
                breaks += 1;
                cluster.wait_online(&cluster.servers[0], true).await?;
                followed = Followed::open(&cluster, &format!("{path}?follow=true&stream=stdout"), Some(&id)).await?;
                continue;
            }
            other => bail!("{other:?} behind line {last}"),
        };
        let next = number(&event.data)?;
        // A restart is a new life, whose count begins where the last one was written down.
        assert!(next == last + 1 || (next <= last && next % 50 == 0), "{next} behind {last}");
        (last, id) = (next, event.id);
        if parts.last() != Some(&part(&id)) {
            parts.push(part(&id));
            match parts.len() {
                2 => {
                    drop(followed);
                    followed =
                        Followed::open(&cluster, &format!("{path}?follow=true&stream=stdout"), Some(&id)).await?;
                    breaks += 1;
                }
                3 => {
                    api.operate(&container, "restart").await?;
                    breaks += 1;
                }
                4 => {
                    cluster.servers[0].stop_agent()?;
                    cluster.servers[0].start()?;
                    breaks += 1;
                }
                _ => {}
            }
        }
    }
    println!("followed to line {last} over {} parts and {breaks} breaks", parts.len());
    // A stopped container's log stays, bounded; a deleted one's does not.
    api.operate(&container, "force-stop").await?;
    api.wait_status(&container, "stopped").await?;
    let page = api.get(&format!("{path}?tail=1&stream=stdout")).await?.data()?;
    assert!(number(&page["logs"][0])? >= last);
    let kept = cluster.servers[0].folder.join("state/logs");
    let bytes: u64 = std::fs::read_dir(&kept)?.flatten().filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum();
    assert!(bytes < 4 * 131_072, "{bytes}");
    api.delete(&format!("/api/v1/containers/{container}"), None).await?.data()?;
    wait::until("it goes with the container", Duration::from_secs(30), async || {
        Ok((std::fs::read_dir(&kept)?.count() == 0).then_some(()))
    })
    .await?;
    Ok(())
}
