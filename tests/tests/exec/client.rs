//! A client of terminals, and what the server's processes say.

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use hoody_tests::cluster::Cluster;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody at a terminal.
pub(crate) struct Terminal {
    socket: WebSocketStream<TcpStream>,
    pub(crate) id: String,
    /// Position behind the last byte that came.
    pub(crate) position: u64,
    /// Position of the first byte that came over this connection.
    pub(crate) from: u64,
    pub(crate) shown: Vec<u8>,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Came {
    Output,
    Told(Value),
    Closed,
}

impl Terminal {
    /// Connects as a browser does; a refusal is the status.
    pub(crate) async fn try_open(cluster: &Cluster, token: &str, path: &str) -> Result<Result<Self, u16>> {
        let address = cluster.control_plane.base_url().trim_start_matches("http://").to_owned();
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        let protocols = HeaderValue::try_from(format!("hoody.terminal, bearer.{token}"))?;
        request.headers_mut().insert("sec-websocket-protocol", protocols);
        let stream = TcpStream::connect(&address).await?;
        let socket = match client_async(request, stream).await {
            Ok((socket, _)) => socket,
            Err(Error::Http(response)) => return Ok(Err(response.status().as_u16())),
            Err(error) => return Err(error.into()),
        };
        let mut this = Self { socket, id: String::new(), position: 0, from: 0, shown: Vec::new() };
        let Came::Told(ready) = this.next().await? else { bail!("not ready first") };
        this.id = ready["terminal_id"].as_str().context("an id")?.to_owned();
        this.position = ready["position"].as_u64().context("a position")?;
        this.from = this.position;
        Ok(Ok(this))
    }

    pub(crate) async fn open(cluster: &Cluster, token: &str, path: &str) -> Result<Self> {
        match Self::try_open(cluster, token, path).await? {
            Ok(this) => Ok(this),
            Err(status) => bail!("{path} answered {status}"),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Came> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = timeout_at(deadline, self.socket.next()).await.with_context(|| {
                let end = &self.shown[self.shown.len().saturating_sub(400)..];
                format!("nothing comes after {:?}", String::from_utf8_lossy(end))
            })?;
            return Ok(match message {
                Some(Ok(Message::Binary(bytes))) => {
                    self.position += bytes.len() as u64;
                    self.shown.extend_from_slice(&bytes);
                    Came::Output
                }
                Some(Ok(Message::Text(text))) => Came::Told(serde_json::from_str(&text)?),
                Some(Ok(Message::Close(_)) | Err(_)) | None => Came::Closed,
                Some(Ok(_)) => continue,
            });
        }
    }

    /// Reads until the text was shown.
    pub(crate) async fn until(&mut self, text: &str) -> Result<String> {
        loop {
            let all = String::from_utf8_lossy(&self.shown).into_owned();
            if all.contains(text) {
                return Ok(all);
            }
            match self.next().await? {
                Came::Output => {}
                other => bail!("{other:?} instead of {text:?}, behind {all:?}"),
            }
        }
    }

    /// Reads until something else than output comes.
    pub(crate) async fn told(&mut self) -> Result<Value> {
        loop {
            match self.next().await? {
                Came::Output => {}
                Came::Told(value) => return Ok(value),
                Came::Closed => bail!("closed"),
            }
        }
    }

    pub(crate) async fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.socket.send(Message::binary(text.as_bytes().to_vec())).await?)
    }

    pub(crate) async fn tell(&mut self, value: Value) -> Result<()> {
        Ok(self.socket.send(Message::text(value.to_string())).await?)
    }

    pub(crate) async fn acknowledge(&mut self) -> Result<()> {
        self.tell(json!({ "type": "ack", "position": self.position })).await
    }
}

/// Processes of this machine whose command line is exactly this.
pub(crate) fn processes(argv: &[&str]) -> Vec<i32> {
    let wanted: Vec<u8> = argv.iter().flat_map(|text| text.bytes().chain([0])).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|text| text == wanted));
    found.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Resident memory of a process, KiB.
pub(crate) fn memory_kib(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
