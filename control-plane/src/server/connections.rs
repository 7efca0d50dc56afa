//! Connections of the public API and the probes: TCP, TLS where there is a certificate, HTTP/1.1, and HTTP/2 where
//! the client chose it in the TLS handshake.
//!
//! A loop of our own around hyper's connections, because what looks at the first bytes of every connection for HTTP/2
//! doubles the buffer that it reads into, which thousands of listeners to events keep, and sets no deadline for
//! these first bytes.
//!
//! One task accepts; each connection is a task. A `watch` tells connections the [`Phase`], and its receivers count them.

use super::tls::HTTP2;
use axum::{Extension, Router, extract::ConnectInfo, middleware::AddExtension};
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::{Layer, util::MapRequest};

/// The time a client has for the TLS handshake, once it has connected.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// The time a client has for the head of a request, from the connection or the answer before on.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// Bytes of the head of an HTTP/1 request; 431 (RFC 6585) from there on. HTTP/2 has 16 KiB of its own.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;
/// Pause between the pings that find out whether an HTTP/2 client is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Pause after the system could not give a connection, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers requests, with the client's address.
pub(super) type Routes = AddExtension<Router, ConnectInfo<SocketAddr>>;

/// The routes for a client at this address.
pub(super) fn routes_for(router: &Router, peer: SocketAddr) -> Routes {
    Extension(ConnectInfo(peer)).layer(router.clone())
}

/// What connections are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Requests are taken.
    Serving,
    /// Requests in progress are finished, others are not taken.
    Finishing,
    /// Connections end, whatever they do.
    Over,
}

/// A listener that is bound, and how it is spoken to.
pub(super) struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl HttpServer {
    /// Listens without TLS; port 0 takes any. Within a Tokio runtime.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener: TcpListener::from_std(listener)?, address, tls: None })
    }

    /// The same with TLS, and nothing else.
    pub(super) fn secured(self, config: Arc<ServerConfig>) -> Self {
        Self { tls: Some(config.into()), ..self }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS.
    pub(super) fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop`, then closes the listener, lets requests in progress end within `deadline`, and returns
    /// when there is no connection left. Upgraded connections are not waited for.
    pub(super) async fn serve(self, router: Router, stop: impl Future<Output = ()>, deadline: Duration) {
        let (phase, _) = watch::channel(Phase::Serving);
        let mut stop = pin!(stop);
        loop {
            let (stream, peer) = tokio::select! {
                biased;
                () = stop.as_mut() => break,
                accepted = accept(&self.listener) => accepted,
            };
            let routes = routes_for(&router, peer);
            let told = phase.subscribe();
            // Answers are small and waited for: they must not wait for more to send.
            let _ = stream.set_nodelay(true);
            match self.tls.clone() {
                None => tokio::spawn(serve_http1(stream, routes, HEAD_DEADLINE, told)),
                Some(tls) => tokio::spawn(secured(tls, stream, routes, told)),
            };
        }
        drop(self.listener);
        phase.send_replace(Phase::Finishing);
        if timeout(deadline, phase.closed()).await.is_err() {
            phase.send_replace(Phase::Over);
            phase.closed().await;
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The handshake, then the version that was chosen in it.
async fn secured(tls: TlsAcceptor, stream: TcpStream, routes: Routes, mut told: watch::Receiver<Phase>) {
    let handshake = tokio::select! {
        handshake = timeout(HANDSHAKE_DEADLINE, tls.accept(stream)) => handshake,
        () = reached(&mut told, Phase::Finishing) => return,
    };
    // Ports are scanned, and clients may not trust the certificate: nothing to tell the operator.
    let Ok(Ok(stream)) = handshake else { return };
    if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
        // On the heap: HTTP/1 connections need not have room for it.
        Box::pin(serve_http2(stream, routes, HEAD_DEADLINE, told)).await;
    } else {
        serve_http1(stream, routes, HEAD_DEADLINE, told).await;
    }
}

/// An HTTP/1.1 connection to its end, or to its upgrade. A head that is not there within the deadline ends it.
pub(super) async fn serve_http1<I>(io: I, routes: Routes, head_deadline: Duration, told: watch::Receiver<Phase>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_deadline)
        .max_header_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes))
        .with_upgrades();
    drive(pin!(connection), http1::UpgradeableConnection::graceful_shutdown, told).await;
}

/// An HTTP/2 connection to its end. One whose first request is not there within the deadline ends: hyper begins to ask
/// whether the client is still there after its first bytes, for which it waits without limit.
pub(super) async fn serve_http2<I>(io: I, routes: Routes, head_deadline: Duration, mut told: watch::Receiver<Phase>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(Notify::new());
    let asking = asked.clone();
    let routes = MapRequest::new(routes, move |request| {
        asking.notify_one();
        request
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = asked.notified() => {}
        () = sleep(head_deadline) => return,
        () = reached(&mut told, Phase::Finishing) => return,
    }
    drive(connection, http2::Connection::graceful_shutdown, told).await;
}

/// Returns when this is the phase, or a later one.
async fn reached(told: &mut watch::Receiver<Phase>, phase: Phase) {
    // Fails where nobody tells any more: the end as well.
    let _ = told.wait_for(|now| *now >= phase).await;
}

/// Runs a connection, and has it `finish` or ends it as it is told to.
async fn drive<C>(mut connection: Pin<&mut C>, finish: fn(Pin<&mut C>), mut told: watch::Receiver<Phase>)
where
    C: Future<Output = hyper::Result<()>>,
{
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = reached(&mut told, Phase::Finishing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            finish(connection.as_mut());
            tokio::select! {
                ended = connection => ended,
                () = reached(&mut told, Phase::Over) => return,
            }
        }
    };
    note(ended);
}

fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        // Clients go away, are too slow or speak something else.
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection failed");
    }
}
