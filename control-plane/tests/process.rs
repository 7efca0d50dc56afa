//! The program as an operator runs it: first start, accounts from the command line, probes, TLS, and the
//! orderly end.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
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
