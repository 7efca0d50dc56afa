//! Connections as clients see them: deadlines, heads that are too large, upgrades, TLS, and the end.

use super::{
    connections::{HttpServer, MAX_HEAD_BYTES, Phase, routes_for, serve_http1, serve_http2},
    tls,
};
use crate::config::Tls;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, ws::WebSocketUpgrade},
    routing::get,
};
use futures::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

/// Nothing here takes as long; what does is a failure. Less than the deadline for heads, which ends idle connections
/// as well.
const LONG: Duration = Duration::from_secs(10);
/// A deadline that passes.
const SHORT: Duration = Duration::from_millis(100);
/// The task of a connection, which is there for as long as a client listens to events.
const MAX_TASK_BYTES: usize = 2 << 10;
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn routes() -> Router {
    Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string())).route(
        "/echo",
        get(async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| {
                while let Some(Ok(message)) = socket.recv().await {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
            })
        }),
    )
}

/// A connection without a network.
fn connection(head_deadline: Duration) -> (DuplexStream, watch::Sender<Phase>, JoinHandle<()>) {
    let (client, server) = duplex(1 << 10);
    let (phase, told) = watch::channel(Phase::Serving);
    (client, phase, tokio::spawn(serve_http1(server, routes_for(&routes(), LOCAL), head_deadline, told)))
}

/// A server on a port of its own; dropping the sender stops it.
async fn server(
    router: Router,
    tls: Option<&Tls>,
    deadline: Duration,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let mut server = HttpServer::bind(LOCAL).expect("bind");
    if let Some(files) = tls {
        server = server.secured(tls::load(files).expect("certificate and key"));
    }
    let address = server.address();
    let (stop, told) = oneshot::channel::<()>();
    (address, stop, tokio::spawn(server.serve(router, async { drop(told.await) }, deadline)))
}

async fn text_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the connection ends").expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut_off() {
    let (mut client, _phase, serving) = connection(SHORT);
    assert_cut_off(&text_of(&mut client).await);
    serving.await.expect("the task ends");
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_cut_off() {
    let (client, _phase, serving) = connection(SHORT);
    let (mut reading, mut writing) = tokio::io::split(client);
    let dripping = tokio::spawn(async move {
        writing.write_all(b"GET / HTTP/1.1\r\n").await.expect("write");
        // For ever, were it not cut off.
        while writing.write_all(b"X-Slow: 1\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    assert_cut_off(&text_of(&mut reading).await);
    serving.await.expect("the task ends");
    dripping.abort();
}

#[tokio::test]
async fn a_client_that_says_nothing_after_an_answer_is_cut_off() {
    let (mut client, _phase, serving) = connection(SHORT);
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    let answer = text_of(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serving.await.expect("the task ends");
}

/// An HTTP/2 connection without a network.
fn connection2(head_deadline: Duration) -> (DuplexStream, watch::Sender<Phase>, JoinHandle<()>) {
    let (client, server) = duplex(1 << 10);
    let (phase, told) = watch::channel(Phase::Serving);
    (client, phase, tokio::spawn(serve_http2(server, routes_for(&routes(), LOCAL), head_deadline, told)))
}

/// The first bytes of every HTTP/2 connection, and settings: all of them as they are.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn an_http2_client_that_asks_nothing_is_cut_off() {
    for first in [&b""[..], PREFACE] {
        let (mut client, _phase, serving) = connection2(SHORT);
        client.write_all(first).await.expect("write");
        text_of(&mut client).await;
        serving.await.expect("the task ends");
    }
}

#[tokio::test]
async fn an_http2_client_that_asks_nothing_does_not_hold_up_the_end() {
    for first in [&b""[..], PREFACE] {
        let (mut client, phase, serving) = connection2(LONG * 10);
        client.write_all(first).await.expect("write");
        phase.send_replace(Phase::Finishing);
        text_of(&mut client).await;
        serving.await.expect("the task ends");
    }
}

#[tokio::test]
async fn an_http2_client_that_has_asked_stays() {
    let (client, _phase, serving) = connection2(SHORT);
    let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = client.await.expect("HTTP/2");
    let driving = tokio::spawn(connection);
    for pause in [Duration::ZERO, 2 * SHORT] {
        // The deadline passes between the two requests.
        tokio::time::sleep(pause).await;
        let request = axum::http::Request::get("http://localhost/").body(Empty::<&[u8]>::new()).expect("a request");
        assert_eq!(sender.send_request(request).await.expect("an answer").status().as_u16(), 200);
    }
    drop(sender);
    driving.await.expect("the task").expect("an orderly end");
    serving.await.expect("the task ends");
}

fn assert_cut_off(answer: &str) {
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let (client, _phase, _serving) = connection(LONG);
    let (mut reading, mut writing) = tokio::io::split(client);
    tokio::spawn(async move {
        let _ = writing.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await;
        let line = format!("X-Large: {}\r\n", "x".repeat(4 << 10));
        for _ in 0..=MAX_HEAD_BYTES / line.len() {
            if writing.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
        pending::<()>().await;
    });
    let answer = text_of(&mut reading).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_large_head_is_taken() {
    let (client, _phase, _serving) = connection(LONG);
    let (mut reading, mut writing) = tokio::io::split(client);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Large: {}\r\n\r\n",
        "x".repeat(MAX_HEAD_BYTES - (4 << 10))
    );
    tokio::spawn(async move { writing.write_all(head.as_bytes()).await.expect("write") });
    let answer = text_of(&mut reading).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("127.0.0.1"), "{answer}");
}

/// What every idle connection holds beside its two buffers of 8 KiB.
#[tokio::test]
async fn the_task_of_a_connection_stays_small() {
    let (_client, server) = duplex(1);
    let (_phase, told) = watch::channel(Phase::Serving);
    let bytes = size_of_val(&serve_http1(server, routes_for(&routes(), LOCAL), LONG, told));
    assert!(bytes <= MAX_TASK_BYTES, "{bytes}");
}

#[tokio::test]
async fn requests_in_progress_are_finished_and_no_others_taken() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let held = (begun.clone(), go_on.clone());
    let router = routes().route(
        "/held",
        get(move || {
            let held = held.clone();
            async move {
                held.0.notify_one();
                held.1.notified().await;
                "finished"
            }
        }),
    );
    let (address, stop, serving) = server(router, None, LONG).await;
    let mut busy = TcpStream::connect(address).await.expect("connect");
    busy.write_all(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    let mut idle = TcpStream::connect(address).await.expect("connect");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("an answer");
    begun.notified().await;

    drop(stop);
    // The idle one is closed; and once it is, the listener is as well.
    text_of(&mut idle).await;
    assert!(TcpStream::connect(address).await.is_err(), "still listening");
    assert!(!serving.is_finished());
    go_on.notify_one();
    let answer = text_of(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("finished"), "{answer}");
    timeout(LONG, serving).await.expect("serving ends").expect("in order");
}

#[tokio::test]
async fn what_does_not_finish_is_cut_off_at_the_deadline() {
    let begun = Arc::new(Notify::new());
    let told = begun.clone();
    let router = routes().route(
        "/for-ever",
        get(move || {
            told.notify_one();
            pending::<()>()
        }),
    );
    let (address, stop, serving) = server(router, None, Duration::from_millis(50)).await;
    let mut client = TcpStream::connect(address).await.expect("connect");
    client.write_all(b"GET /for-ever HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    begun.notified().await;
    drop(stop);
    assert_eq!(text_of(&mut client).await, "");
    timeout(LONG, serving).await.expect("serving ends").expect("in order");
}

#[tokio::test]
async fn an_upgraded_connection_goes_on_and_is_not_waited_for() {
    let (address, stop, serving) = server(routes(), None, LONG).await;
    let stream = TcpStream::connect(address).await.expect("connect");
    let (mut socket, answer) = tokio_tungstenite::client_async("ws://x/echo", stream).await.expect("the upgrade");
    assert_eq!(answer.status().as_u16(), 101);
    drop(stop);
    timeout(LONG, serving).await.expect("serving ends").expect("in order");
    socket.send(Message::text("still there")).await.expect("send");
    let message = timeout(LONG, socket.next()).await.expect("in time").expect("a message").expect("in order");
    assert_eq!(message, Message::text("still there"));
}

/// A certificate for `localhost` in files, and a client's trust in it.
fn certificate(folder: &std::path::Path) -> (Tls, RootCertStore) {
    // Fails where it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = Tls { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).expect("write");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("write");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).expect("a root");
    (files, roots)
}

#[tokio::test]
async fn within_tls_the_client_chooses_the_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, roots) = certificate(folder.path());
    let (address, stop, serving) = server(routes(), Some(&files), LONG).await;
    let connect = async |versions: &[&[u8]]| {
        let mut config = ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = versions.iter().map(|version| version.to_vec()).collect();
        let stream = TcpStream::connect(address).await.expect("connect");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("the handshake")
    };

    let mut stream = connect(&[]).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("write");
    let answer = text_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("127.0.0.1"), "{answer}");

    let stream = connect(&[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let driving = tokio::spawn(connection);
    let request = axum::http::Request::get("https://localhost/").body(Empty::<&[u8]>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!((answer.version(), answer.status().as_u16()), (axum::http::Version::HTTP_2, 200));
    let body = Body::new(answer.into_body()).collect().await.expect("a body").to_bytes();
    assert_eq!(body, "127.0.0.1");

    // Not closed by the client: the server ends it.
    drop(stop);
    timeout(LONG, serving).await.expect("serving ends").expect("in order");
    timeout(LONG, driving).await.expect("in time").expect("the task").expect("an orderly end");
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (files, _) = certificate(one.path());
    let (others, _) = certificate(other.path());
    assert!(tls::load(&files).is_ok());
    assert!(tls::load(&Tls { key: others.key, ..files.clone() }).is_err());
    assert!(tls::load(&Tls { certificate: files.key.clone(), ..files }).is_err());
}
