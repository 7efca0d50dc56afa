//! The program as an operator runs it: first start, accounts from the command line, probes, TLS, the orderly
//! end, and the other one.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hoody-control-plane");
/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOODY_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).env("HOODY_DATA_DIR", data).env_remove("NOTIFY_SOCKET");
    command
}

fn create_user(data: &Path, name: &str, password: &str) -> Output {
    let mut child = command(data, &["admin", "create-user", name, "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    child.wait_with_output().unwrap()
}

/// A serving process; killed when dropped.
struct Serving {
    child: Child,
    http: SocketAddr,
    log: mpsc::Receiver<String>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serving {
    /// Starts on free ports, which it reads from the log.
    fn start(data: &Path, more: &[&str]) -> Self {
        let arguments = ["serve", "--http-address", "127.0.0.1:0", "--node-address", "127.0.0.1:0"];
        let mut child =
            command(data, &[&arguments, more].concat()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, log) = mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut serving = Self { child, http: ([127, 0, 0, 1], 0).into(), log };
        let line = serving.until("serving the public API");
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        serving.http = address.parse().unwrap();
        serving
    }

    /// The next log line with this text.
    fn until(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|error| panic!("no {text:?} in the log: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn terminate(&mut self) -> i32 {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(Instant::now() < deadline, "it did not end");
            std::thread::yield_now();
        }
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A TLS peer may close without a farewell; what arrived is what counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> String {
    let stream = TcpStream::connect(address).unwrap();
    exchange(stream, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
}

#[test]
fn the_first_start_makes_everything_and_the_next_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let made = create_user(&data, "ann", "correct horse");
    assert!(made.status.success(), "{made:?}");
    assert_eq!(String::from_utf8(made.stdout).unwrap().trim().len(), 24);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("master.key"))), (0o700, 0o600));

    let again = create_user(&data, "ann", "correct horse");
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("already in use"));
    let short = create_user(&data, "bob", "short");
    assert!(String::from_utf8_lossy(&short.stderr).contains("password must be"), "{short:?}");

    let mut serving = Serving::start(&data, &[]);
    assert!(get(serving.http, "/readyz").starts_with("HTTP/1.1 200"));
    let body = r#"{"username": "ann", "password": "correct horse"}"#;
    let request = format!(
        "POST /api/v1/users/auth/login HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(TcpStream::connect(serving.http).unwrap(), &request);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("refreshToken"), "{answer}");
    assert_eq!(serving.terminate(), 0);

    let other = "ab".repeat(32);
    let wrong = command(&data, &["serve", "--http-address", "127.0.0.1:0", "--node-address", "127.0.0.1:0"])
        .env("HOODY_MASTER_KEY", other)
        .output()
        .unwrap();
    assert!(!wrong.status.success());
    let message = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(message.contains("the master key does not open"), "{message}");
}

#[test]
fn a_request_in_progress_is_answered_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(folder.path(), &[]);
    let mut stream = TcpStream::connect(serving.http).unwrap();
    let head = "POST /api/v1/users/auth/login HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // The handler asks for the body: the request is in progress.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    let killed = Command::new("kill").args(["-TERM", &serving.child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    serving.until("stopping");
    let answer = exchange(stream, "{}");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("VALIDATION_ERROR"), "{answer}");
    serving.until("stopped");
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn with_a_certificate_the_api_speaks_tls_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let arguments = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let mut serving = Serving::start(folder.path(), &arguments);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let stream = rustls::StreamOwned::new(client, TcpStream::connect(serving.http).unwrap());
    let answer = exchange(stream, "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!get(serving.http, "/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(serving.terminate(), 0);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(folder.path(), &["serve", "--http-address", &address, "--node-address", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains(&format!("listen on {address}")), "{message}");
}

/// Sends a request with a token; the status and the whole answer, or nothing where the process is gone.
fn call(address: SocketAddr, token: &str, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = stream;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    // Cut off within the body: not an answer.
    answer.ends_with('}').then_some((status, answer))
}

fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let (_, rest) = answer.split_once(&format!("\"{name}\":\"")).unwrap();
    rest.split('"').next().unwrap()
}

/// Makes and deletes projects until the process is gone; ids of those whose creation and deletion were answered.
fn make_and_delete(address: SocketAddr, token: &str, alias: &str, answers: &AtomicUsize) -> [Vec<String>; 2] {
    let [mut made, mut deleted] = [vec![], vec![]];
    for number in 0.. {
        let body = format!(r#"{{"alias": "{alias} {number}"}}"#);
        let Some((201, answer)) = call(address, token, "POST", "/api/v1/projects", &body) else { break };
        let id = field(answer.split_once("\"data\":").unwrap().1, "id").to_owned();
        made.push(id.clone());
        answers.fetch_add(1, Ordering::Relaxed);
        let Some((200, _)) = call(address, token, "DELETE", &format!("/api/v1/projects/{id}"), "") else { break };
        deleted.push(id);
        answers.fetch_add(1, Ordering::Relaxed);
    }
    [made, deleted]
}

/// Kills the process at work several times; afterwards exactly the changes that are there have events, and
/// all of them are delivered.
fn killed_at_work(database: &str, more: &[&str], data: &Path) {
    const ROUNDS: usize = 4;
    const WRITERS: usize = 4;
    const ANSWERS: usize = 37;
    let flags = [more, &["--rate-limit-authenticated", "1000000", "--rate-limit-anonymous", "1000000"]].concat();
    let created = command(
        data,
        &[&["admin", "create-user", "ann", "--password-file"], &[data.join("p").to_str().unwrap()][..], more].concat(),
    )
    .output()
    .unwrap();
    assert!(created.status.success(), "{created:?}");
    let mut acknowledged = [BTreeSet::new(), BTreeSet::new()];
    let mut token = String::new();
    for round in 0..ROUNDS {
        let mut serving = Serving::start(data, &flags);
        let address = serving.http;
        if token.is_empty() {
            let body = r#"{"username": "ann", "password": "correct horse"}"#;
            let (_, answer) = call(address, "none", "POST", "/api/v1/users/auth/login", body).unwrap();
            token = field(&answer, "token").to_owned();
        }
        let answers = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (answers, token) = (&answers, &token);
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let alias = format!("{round} {writer}");
                    scope.spawn(move || make_and_delete(address, token, &alias, answers))
                })
                .collect();
            let deadline = Instant::now() + PATIENCE;
            while answers.load(Ordering::Relaxed) < ANSWERS + round {
                assert!(Instant::now() < deadline, "too few answers");
                std::thread::yield_now();
            }
            serving.child.kill().unwrap();
            for writer in writers {
                let [made, deleted] = writer.join().unwrap();
                acknowledged[0].extend(made);
                acknowledged[1].extend(deleted);
            }
        });
        serving.child.wait().unwrap();
    }

    let serving = Serving::start(data, &flags);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ids = |sql: &'static str| -> BTreeSet<String> {
        runtime.block_on(async {
            let store = hoody_control_plane::store::Store::open(database).await.unwrap();
            let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(store.reader()).await.unwrap();
            store.close().await;
            found.into_iter().collect()
        })
    };
    let there = ids("SELECT id FROM projects");
    let made = ids("SELECT resource_id FROM events WHERE event_type = 'project.created'");
    let deleted = ids("SELECT resource_id FROM events WHERE event_type = 'project.deleted'");
    assert_eq!(there, &made - &deleted, "a change without its event, or an event without its change");
    assert!(acknowledged[0].is_subset(&made) && acknowledged[1].is_subset(&deleted), "what was answered is there");

    // Also what was committed and not published when the process was killed.
    let stream = TcpStream::connect(serving.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET /api/v1/events/stream?resource_type=project&last_event_id=0 HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {token}\r\n\r\n"
    );
    (&stream).write_all(request.as_bytes()).unwrap();
    let mut delivered = BTreeMap::<String, Vec<String>>::new();
    let mut lines = BufReader::new(&stream).lines();
    let mut count = 0;
    while count < made.len() + deleted.len() {
        let line = lines.next().expect("the stream goes on").unwrap();
        if line.starts_with("data: ") {
            count += 1;
            delivered
                .entry(field(&line, "resource_id").to_owned())
                .or_default()
                .push(field(&line, "event_type").to_owned());
        }
    }
    for id in &made {
        let expected: &[&str] =
            if deleted.contains(id) { &["project.created", "project.deleted"] } else { &["project.created"] };
        assert_eq!(delivered[id], expected, "each once and in order");
    }
}

#[test]
fn killed_at_work_no_change_is_without_its_event() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p"), "correct horse\n").unwrap();
    let database = format!("sqlite://{}", folder.path().join("hoody.db").display());
    killed_at_work(&database, &[], folder.path());
}

#[test]
fn killed_at_work_on_postgresql_no_change_is_without_its_event() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p"), "correct horse\n").unwrap();
    let server = std::env::var("HOODY_TEST_POSTGRES").expect("HOODY_TEST_POSTGRES names a PostgreSQL server");
    let name = format!("hoody_killed_{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |sql: String| {
        runtime.block_on(async {
            sqlx::any::install_default_drivers();
            let pool = sqlx::AnyPool::connect(&server).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
            pool.close().await;
        });
    };
    run(format!("CREATE DATABASE {name}"));
    let database = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    let outcome = std::panic::catch_unwind(|| {
        killed_at_work(&database, &["--database-url", &database], folder.path());
    });
    run(format!("DROP DATABASE {name} WITH (FORCE)"));
    outcome.unwrap();
}
