//! Clients of the API while all agents report: reads, and commands that go to an agent and back.

use crate::measure::Times;
use anyhow::{Context, Result, ensure};
use hoody_protocol::id::ContainerId;
use hoody_tests::cluster::Cluster;
use rand::seq::IndexedRandom;
use reqwest::Method;
use std::time::Duration;
use tokio::time::Instant;

/// Clients of each kind, and each one's pause between two requests.
const READERS: usize = 8;
const READ_PAUSE: Duration = Duration::from_millis(40);
const COMMANDERS: usize = 2;
const COMMAND_PAUSE: Duration = Duration::from_millis(100);

/// What clients do.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Read,
    Restart,
    StopAndStart,
}

const KINDS: [(Kind, &str, usize, Duration); 3] = [
    (Kind::Read, "read of one container", READERS, READ_PAUSE),
    (Kind::Restart, "command: restart, until done", COMMANDERS, COMMAND_PAUSE),
    (Kind::StopAndStart, "change: stop or start, until reported", COMMANDERS, COMMAND_PAUSE),
];

/// Runs all clients for this long.
pub(super) async fn run(
    cluster: &Cluster,
    containers: &[ContainerId],
    time: Duration,
) -> Result<[(&'static str, Times); KINDS.len()]> {
    let until = Instant::now() + time;
    let mut running = tokio::task::JoinSet::new();
    // Each client has containers of its own: two commands to one container would wait for each other.
    let mut shares = containers.chunks(containers.len().div_ceil(READERS + 2 * COMMANDERS));
    for (index, (kind, _, clients, pause)) in KINDS.into_iter().enumerate() {
        for _ in 0..clients {
            let client = Client {
                http: reqwest::Client::new(),
                base: cluster.control_plane.base_url(),
                token: cluster.tenant.token.clone().unwrap_or_default(),
            };
            let share = shares.next().context("more clients than containers")?.to_vec();
            running.spawn(async move { anyhow::Ok((index, client.run(kind, &share, pause, until).await?)) });
        }
    }
    let mut measured = KINDS.map(|(_, what, ..)| (what, Times::default()));
    while let Some(done) = running.join_next().await {
        let (index, times) = done??;
        measured[index].1.extend(times);
    }
    Ok(measured)
}

struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    async fn run(&self, kind: Kind, containers: &[ContainerId], pause: Duration, until: Instant) -> Result<Times> {
        let mut times = Times::default();
        while Instant::now() < until {
            let container = containers.choose(&mut rand::rng()).context("no containers")?;
            let path = format!("/containers/{container}");
            let verbs: &[(Method, &str)] = match kind {
                Kind::Read => &[(Method::GET, "")],
                Kind::Restart => &[(Method::POST, "/restart")],
                Kind::StopAndStart => &[(Method::POST, "/stop"), (Method::POST, "/start")],
            };
            for (method, verb) in verbs {
                times.push(self.request(method.clone(), &format!("{path}{verb}")).await?);
                tokio::time::sleep(pause).await;
            }
        }
        Ok(times)
    }

    async fn request(&self, method: Method, path: &str) -> Result<Duration> {
        let begun = Instant::now();
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base)).bearer_auth(&self.token);
        let answer = request.header("content-type", "application/json").send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        let taken = begun.elapsed();
        ensure!(status.is_success(), "{path} answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(taken)
    }
}
