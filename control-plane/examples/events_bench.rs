//! `make bench-events`: memory of idle listeners, and the time from an event to its delivery.
//!
//! Starts the control plane beside this program (on SQLite in a temporary folder, or on the database that
//! `HOODY_BENCH_DATABASE` names), opens server-sent event streams as some users, and then changes projects of
//! another user at a steady rate. The time is that from the event's `created_at`, which is written before the
//! commit, to its arrival here: more than from the commit.

use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LISTENERS: usize = 5_000;
const IDLE_USERS: usize = 10;
const EVENTS_PER_SECOND: u32 = 500;
const SECONDS: u32 = 20;
const WRITERS: u32 = 25;
const PASSWORD: &str = "a long password";

struct Plane(Child);

impl Drop for Plane {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let program = std::env::current_exe()?.with_file_name("../hoody-control-plane").canonicalize()?;
    let folder = tempfile::tempdir()?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    create_user(&program, folder.path(), "busy")?;
    for number in 0..IDLE_USERS {
        create_user(&program, folder.path(), &format!("idle{number}"))?;
    }
    let plane = Plane(
        command(&program, folder.path())
            .args(["serve", "--http-address", &address, "--node-address", "127.0.0.1:0"])
            .env("HOODY_RATE_LIMIT_AUTHENTICATED", "100000000")
            .env("HOODY_RATE_LIMIT_LOGIN", "1000")
            .stderr(Stdio::null())
            .spawn()?,
    );
    wait_until_ready(&address).await?;
    let before = resident_kib(plane.0.id())?;
    let busy = login(&address, "busy").await?;
    let mut streams = Vec::with_capacity(LISTENERS);
    for number in 0..IDLE_USERS {
        let idle = login(&address, &format!("idle{number}")).await?;
        for _ in 0..LISTENERS / IDLE_USERS {
            streams.push(open_stream(&address, &idle).await?);
        }
    }
    let with_listeners = resident_kib(plane.0.id())?;
    println!("listeners          {LISTENERS}");
    println!("memory before      {:>8} KiB", before);
    println!("memory with them   {:>8} KiB", with_listeners);

    let times = deliver(&address, &busy).await?;
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("events             {}", times.len());
    println!("event → delivered  p50 {} ms, p99 {} ms, max {} ms", at(0.5), at(0.99), at(1.0));
    println!("memory at the end  {:>8} KiB", resident_kib(plane.0.id())?);
    Ok(())
}

/// Milliseconds from each event to its arrival, sorted.
async fn deliver(address: &str, token: &str) -> Result<Vec<i64>, Failure> {
    let mut projects = Vec::new();
    for number in 0..WRITERS {
        let made =
            call(address, "POST", "/api/v1/projects", token, &json!({"alias": format!("bench {number}")})).await?;
        projects.push(made["data"]["id"].as_str().ok_or("no project id")?.to_owned());
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
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let rate = f64::from(each * WRITERS) / begun.elapsed().as_secs_f64();
    println!("changes            {rate:.0} a second of {EVENTS_PER_SECOND}");
    let mut times = Vec::with_capacity(expected);
    while times.len() < expected {
        let next = tokio::time::timeout(Duration::from_secs(10), arrived.recv()).await;
        times.push(
            next.map_err(|_| format!("only {} of {expected} events arrived", times.len()))?
                .ok_or("the stream ended")?,
        );
    }
    reading.abort();
    times.sort_unstable();
    Ok(times)
}

fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("HOODY_DATA_DIR", folder);
    if let Some(url) = std::env::var_os("HOODY_BENCH_DATABASE") {
        command.env("HOODY_DATABASE_URL", url);
    }
    command
}

fn create_user(program: &Path, folder: &Path, name: &str) -> Result<(), Failure> {
    let file = folder.join("password");
    std::fs::write(&file, PASSWORD)?;
    let mut create = command(program, folder);
    create.args(["admin", "create-user", name, "--password-file"]).arg(&file).stdout(Stdio::null());
    if create.status()?.success() { Ok(()) } else { Err(format!("create the user {name}").into()) }
}

async fn wait_until_ready(address: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("the control plane does not answer".into())
}

async fn login(address: &str, name: &str) -> Result<String, Failure> {
    let body = json!({"username": name, "password": PASSWORD});
    let answer = call(address, "POST", "/api/v1/users/auth/login", "", &body).await?;
    Ok(answer["data"]["token"].as_str().ok_or("no token")?.to_owned())
}

async fn call(address: &str, method: &str, path: &str, token: &str, body: &Value) -> Result<Value, Failure> {
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
) -> Result<Value, Failure> {
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await?;
    let (status, length) = read_head(connection).await?;
    let mut answer = vec![0; length.ok_or("an answer without a length")?];
    connection.read_exact(&mut answer).await?;
    if !(200..300).contains(&status) {
        return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

async fn open_stream(address: &str, token: &str) -> Result<BufReader<TcpStream>, Failure> {
    let mut stream = BufReader::with_capacity(1 << 10, TcpStream::connect(address).await?);
    let head = format!("GET /api/v1/events/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    match read_head(&mut stream).await? {
        (200, _) => Ok(stream),
        (status, _) => Err(format!("the stream answers {status}").into()),
    }
}

async fn read_head(connection: &mut BufReader<TcpStream>) -> Result<(u16, Option<usize>), Failure> {
    let (mut status, mut length) = (0, None);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).await? == 0 {
            return Err("the connection was closed".into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.get(..3).ok_or("no status")?.parse()?;
        } else if let Some(rest) = line.strip_prefix("content-length:") {
            length = Some(rest.trim().parse()?);
        } else if line.is_empty() {
            return Ok((status, length));
        }
    }
}

/// Resident memory of a process.
fn resident_kib(pid: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
