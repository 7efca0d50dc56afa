//! Authenticated reads of one container a second, beside a bare handler that does the same checks of the
//! token, the same read and the same signature (`src/bin/bare_read.rs`).

use super::table;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Process, program},
    ports::Port,
    wait,
};
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CLIENTS: usize = 8;
const TIME: Duration = Duration::from_secs(3);
/// Alternating, so that whatever else the machine does meets both.
const ROUNDS: usize = 3;

pub(super) async fn run(cluster: &Cluster, api: &Api) -> Result<()> {
    let project = api.project("read").await?;
    let id = api.container(&project, "busybox", json!({ "name": "read" })).await?;
    let bare = Bare::start(cluster).await?;
    let path = format!("/api/v1/containers/{id}");
    let token = api.token.clone().context("a token")?;
    let ours: SocketAddr = cluster.control_plane.base_url().trim_start_matches("http://").parse()?;
    let (mut platform, mut peer) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS {
        peer = peer.max(rate(bare.address, &path, &token).await?);
        platform = platform.max(rate(ours, &path, &token).await?);
    }
    table::part(&format!("reads of one container, {CLIENTS} connections, best of {ROUNDS} times {} s", TIME.as_secs()));
    table::value("GET through the API, a second", &format!("{platform:.0}"));
    table::value("bare handler: token, read, signature", &format!("{peer:.0}"));
    table::value("share", &format!("{:.2}", platform / peer));
    api.delete(&path, None).await?.data().map(drop)
}

/// The bare handler's process.
struct Bare {
    address: SocketAddr,
    _process: Process,
    _port: Port,
}

impl Bare {
    async fn start(cluster: &Cluster) -> Result<Self> {
        let port = Port::take()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let mut command = Command::new(program("bare_read"));
        command
            .arg(cluster.control_plane.data_dir())
            .arg(cluster.control_plane.database_url())
            .arg(address.to_string());
        let log = cluster.folder().join("bare-read.log");
        let mut process = Process::start("the bare handler", &mut command, &log)?;
        wait::until("the bare handler listens", Duration::from_secs(10), async || {
            process.check()?;
            Ok(TcpStream::connect(address).await.is_ok().then_some(()))
        })
        .await?;
        Ok(Self { address, _port: port, _process: process })
    }
}

/// Requests a second of all clients together.
async fn rate(address: SocketAddr, path: &str, token: &str) -> Result<f64> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(address, request.clone(), begun + TIME));
    }
    let mut answers = 0;
    while let Some(done) = clients.join_next().await {
        answers += done??;
    }
    Ok(f64::from(answers) / begun.elapsed().as_secs_f64())
}

async fn client(address: SocketAddr, request: String, until: Instant) -> Result<u32> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answers = 0;
    while Instant::now() < until {
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream).await?;
        answers += 1;
    }
    Ok(answers)
}

/// Reads one response with a known length.
async fn answer(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the server closed the connection");
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&bytes[..head])?;
        ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let whole = head + 4 + length.context("no content-length")?;
        while bytes.len() < whole {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the server closed the connection");
        }
        return Ok(());
    }
}
