//! `dev bench-events`: memory of idle listeners, and the time from an event to its delivery.
//!
//! Opens server-sent event streams and WebSockets as some users, and then changes projects of another user at a steady
//! rate.
//! The time is that from the event's `created_at`, which is written before the commit, to its arrival here:
//! more than from the commit. HOODY_BENCH_DATABASE=postgres://… takes that database instead of SQLite.

use crate::measure::{memory, profile};
use anyhow::{Context, Result, bail, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Database, Plan},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

/// Listeners of each kind.
const LISTENERS: usize = 2_500;
/// A ping without content, and what answers it (RFC 6455, section 5).
const PING: [u8; 2] = [0x89, 0];
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const IDLE_USERS: usize = 10;
const EVENTS_PER_SECOND: u32 = 500;
const SECONDS: u32 = 20;
const WRITERS: u32 = 25;

pub(super) async fn run() -> Result<()> {
    let database = std::env::var("HOODY_BENCH_DATABASE").map_or(Database::Sqlite, Database::Postgres);
    let cluster = Cluster::start(Plan { servers: 0, images: Vec::new(), database, ..Plan::default() }).await?;
    let plane = &cluster.control_plane;
    let address = plane.base_url().trim_start_matches("http://").to_owned();
    let pid = plane.pid().context("the control plane runs")?;
    println!("{} build", profile());
    let mut idle = Vec::new();
    for number in 0..IDLE_USERS {
        idle.push(token(&cluster.second_tenant(&format!("idle{number}")).await?)?);
    }
    let (before, _) = memory(pid)?;
    row("memory before", &format!("{before:.0} MiB"));
    let mut streams = Vec::with_capacity(LISTENERS);
    for token in &idle {
        for _ in 0..LISTENERS / IDLE_USERS {
            streams.push(open_stream(&address, token).await?);
        }
    }
    let (with_streams, _) = memory(pid)?;
    listening("server-sent events", before, with_streams);
    let mut sockets = JoinSet::new();
    for token in &idle {
        for _ in 0..LISTENERS / IDLE_USERS {
            sockets.spawn(answer_pings(open_socket(&address, token).await?));
        }
    }
    let (with_all, _) = memory(pid)?;
    listening("WebSocket", with_streams, with_all);
    row(&format!("memory with {} listeners", 2 * LISTENERS), &format!("{with_all:.0} MiB"));
    let times = deliver(&address, &token(&cluster.tenant)?).await?;
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    row("events", &times.len().to_string());
    row("event to delivery", &format!("p50 {} ms, p99 {} ms, at most {} ms", at(0.5), at(0.99), at(1.0)));
    let (end, most) = memory(pid)?;
    row("memory at the end", &format!("{end:.0} MiB, at most {most:.0} MiB"));
    ensure!(sockets.try_join_next().is_none(), "a WebSocket ended");
    Ok(())
}

fn listening(kind: &str, before: f64, with: f64) {
    let each = (with - before) * 1024.0 / LISTENERS as f64;
    row(&format!("memory of {LISTENERS} listeners, {kind}"), &format!("{:.0} MiB, {each:.1} KiB each", with - before));
}

fn token(api: &Api) -> Result<String> {
    api.token.clone().context("a token")
}

fn row(what: &str, value: &str) {
    println!("{what:<40} {value}");
}

/// Milliseconds from each event to its arrival, sorted.
async fn deliver(address: &str, token: &str) -> Result<Vec<i64>> {
    let mut projects = Vec::new();
    for number in 0..WRITERS {
        let made =
            call(address, "POST", "/api/v1/projects", token, &json!({"alias": format!("bench {number}")})).await?;
        projects.push(made["data"]["id"].as_str().context("no project id")?.to_owned());
    }
    let mut stream = open_stream(address, token).await?;
    let expected = (EVENTS_PER_SECOND * SECONDS) as usize;
    let (done, mut arrived) = mpsc::channel(expected);
    let reading = tokio::spawn(async move {
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(data).unwrap_or_default();
            let at =
                event["event"]["created_at"].as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
            if let (Some(at), "project.updated") = (at, event["event"]["event_type"].as_str().unwrap_or_default()) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
                if done.send(now - at.timestamp_millis()).await.is_err() {
                    return;
                }
            }
        }
    });
    let each = EVENTS_PER_SECOND * SECONDS / WRITERS;
    let pause = Duration::from_secs(1) * WRITERS / EVENTS_PER_SECOND;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for project in projects {
        let (address, token) = (address.to_owned(), token.to_owned());
        writers.spawn(async move {
            let mut connection = BufReader::new(TcpStream::connect(&address).await?);
            let mut ticks = tokio::time::interval(pause);
            for number in 0..each {
                ticks.tick().await;
                let body = json!({"color": format!("#{number:06x}")});
                request(&mut connection, "PATCH", &format!("/api/v1/projects/{project}"), &token, &body).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let rate = f64::from(each * WRITERS) / begun.elapsed().as_secs_f64();
    row("changes a second", &format!("{rate:.0} of {EVENTS_PER_SECOND}"));
    let mut times = Vec::with_capacity(expected);
    while times.len() < expected {
        let next = tokio::time::timeout(Duration::from_secs(10), arrived.recv()).await;
        times.push(
            next.with_context(|| format!("only {} of {expected} events arrived", times.len()))?
                .context("the stream ended")?,
        );
    }
    reading.abort();
    times.sort_unstable();
    Ok(times)
}

async fn call(address: &str, method: &str, path: &str, token: &str, body: &Value) -> Result<Value> {
    let mut connection = BufReader::new(TcpStream::connect(address).await?);
    request(&mut connection, method, path, token, body).await
}

/// One request on a connection that stays open.
async fn request(
    connection: &mut BufReader<TcpStream>,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> Result<Value> {
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await?;
    let (status, length) = read_head(connection).await?;
    let mut answer = vec![0; length.context("an answer without a length")?];
    connection.read_exact(&mut answer).await?;
    ensure!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer)?)
}

async fn open_stream(address: &str, token: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = BufReader::with_capacity(1 << 10, TcpStream::connect(address).await?);
    let head = format!("GET /api/v1/events/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    match read_head(&mut stream).await? {
        (200, _) => Ok(stream),
        (status, _) => bail!("the stream answers {status}"),
    }
}

async fn open_socket(address: &str, token: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = BufReader::with_capacity(1 << 10, TcpStream::connect(address).await?);
    let head = format!(
        "GET /api/v1/events/ws HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    match read_head(&mut stream).await? {
        (101, _) => Ok(stream),
        (status, _) => bail!("the socket answers {status}"),
    }
}

/// Stays connected; returns with the connection's end, or with anything else than a ping.
async fn answer_pings(mut socket: BufReader<TcpStream>) {
    let mut frame = [0; PING.len()];
    while socket.read_exact(&mut frame).await.is_ok() && frame == PING {
        if socket.write_all(&PONG).await.is_err() {
            return;
        }
    }
}

async fn read_head(connection: &mut BufReader<TcpStream>) -> Result<(u16, Option<usize>)> {
    let (mut status, mut length) = (0, None);
    loop {
        let mut line = String::new();
        ensure!(connection.read_line(&mut line).await? > 0, "the connection was closed");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.get(..3).context("no status")?.parse()?;
        } else if let Some(rest) = line.strip_prefix("content-length:") {
            length = Some(rest.trim().parse()?);
        } else if line.is_empty() {
            return Ok((status, length));
        }
    }
}
