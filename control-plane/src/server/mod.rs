//! The running process: listeners, notifications to the service supervisor, and the orderly end.
//!
//! On SIGTERM or SIGINT no new connection is taken, requests in progress get
//! [`Config::shutdown_deadline`](crate::config::Config::shutdown_deadline), then everything ends.

mod probe;
mod supervisor;

use crate::{api, app::App, config::Tls, error::chain, live, nodes, tasks};
use axum_server::{
    Handle, Server,
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use hyper_util::rt::TokioTimer;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};

/// The time a client has for the head of a request, once it has connected.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);
/// Pause between the pings that find out whether an HTTP/2 client is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// The time for writing what waits in memory, at the end.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// Why the process could not run on.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ServeError {
    /// What was tried.
    pub what: String,
    /// What the system said.
    pub source: io::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ServeError {
    let what = what.into();
    move |source| ServeError { what, source }
}

/// Serves until told to stop.
pub async fn run(app: App) -> Result<(), ServeError> {
    let recorder = probe::install_recorder()?;
    let deadline = app.config.shutdown_deadline;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;
    // Everything that can fail for want of a port or a file fails before readiness is announced.
    let public = Public::new(&app).await?;
    let probes = app.config.metrics_address.map(server).transpose()?;
    // Last: it marks every server as offline, which a process that cannot serve must not do.
    let nodes = nodes::start(app.clone())
        .await
        .map_err(|error| ServeError { what: "listen for nodes".to_owned(), source: io::Error::other(error) })?;

    let probing = probes.map(|(server, address)| {
        tracing::info!(%address, "serving metrics and probes");
        let service = probe::router(app.clone(), recorder).into_make_service();
        tokio::spawn(server.serve(service))
    });
    let background = [
        tokio::spawn(live::feed::run(app.store.clone(), app.live.clone())),
        tokio::spawn(tasks::blobs::run(app.clone(), tasks::blobs::INTERVAL)),
        tokio::spawn(tasks::expiry::run(app.clone())),
        tokio::spawn(tasks::snapshots::run(app.clone())),
        tokio::spawn(tasks::keys::run(app.clone())),
        tokio::spawn(tasks::mail::run(app.clone())),
        tokio::spawn(tasks::pulls::run(app.clone())),
        tokio::spawn(tasks::retention::run(app.clone(), tasks::retention::INTERVAL)),
        tokio::spawn(tasks::shares::run(app.clone(), tasks::shares::INTERVAL)),
        tokio::spawn(tasks::token_uses::run(app.clone(), tasks::token_uses::INTERVAL)),
    ];
    let activity = app.activity.clone();
    let recording = tokio::spawn(app.activity.clone().run(app.store.clone()));
    let listeners = app.live.clone();
    let conversations = app.conversations.clone();
    let uses = (app.token_uses.clone(), app.store.clone());
    tracing::info!(address = %public.address, tls = public.tls.is_some(), "serving the public API");
    let handle: Handle<SocketAddr> = Handle::new();
    let mut serving = public.serve(app, handle.clone());
    let watchdog = supervisor::ready();

    let ended_early = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut serving => Some(ended),
    };
    supervisor::stopping();
    let ended = match ended_early {
        Some(ended) => ended,
        None => {
            tracing::info!(deadline_s = deadline.as_secs(), "stopping: waiting for requests in progress");
            // Streams would go on for ever.
            listeners.close();
            conversations.close();
            handle.graceful_shutdown(Some(deadline));
            serving.await
        }
    };
    nodes.shutdown().await;
    if let Some(probing) = probing {
        probing.abort();
    }
    watchdog.abort();
    background.iter().for_each(JoinHandle::abort);
    activity.stop();
    // What waits is one batch or a few; a database that does not answer must not keep the process.
    if tokio::time::timeout(FLUSH_DEADLINE, recording).await.is_err() {
        tracing::warn!("the last lines of the activity log were not written");
    }
    if let Err(error) = uses.0.write(&uses.1).await {
        tracing::warn!(error = chain(&error), "the last uses of auth tokens were not written");
    }
    ended.map_err(io::Error::other).and_then(|served| served).map_err(failed("serve the public API"))
}

/// The public API's listener.
struct Public {
    server: Server<SocketAddr>,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
}

impl Public {
    async fn new(app: &App) -> Result<Self, ServeError> {
        let (server, address) = server(app.config.http_address)?;
        let tls = match &app.config.tls {
            Some(tls) => Some(load_tls(tls).await?),
            None => None,
        };
        Ok(Self { server, address, tls })
    }

    fn serve(self, app: App, handle: Handle<SocketAddr>) -> JoinHandle<io::Result<()>> {
        let service = api::router(app).into_make_service_with_connect_info::<SocketAddr>();
        // Answers are small and waited for: they must not wait for more to send.
        let server = self.server.handle(handle).acceptor(NoDelayAcceptor::new());
        match self.tls {
            Some(config) => {
                let secured = server.map(|plain| RustlsAcceptor::new(config).acceptor(plain));
                tokio::spawn(secured.serve(service))
            }
            None => tokio::spawn(server.serve(service)),
        }
    }
}

/// A server listening on `address`, and where it really is.
fn server(address: SocketAddr) -> Result<(Server<SocketAddr>, SocketAddr), ServeError> {
    let what = format!("listen on {address}");
    let listener = TcpListener::bind(address).map_err(failed(&what))?;
    listener.set_nonblocking(true).map_err(failed(&what))?;
    let address = listener.local_addr().map_err(failed(&what))?;
    let mut server = axum_server::from_tcp(listener).map_err(failed(&what))?;
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE);
    server.http_builder().http2().timer(TokioTimer::new()).keep_alive_interval(HTTP2_PING_INTERVAL);
    Ok((server, address))
}

async fn load_tls(tls: &Tls) -> Result<RustlsConfig, ServeError> {
    let what = format!("load certificate {} and key {}", tls.certificate.display(), tls.key.display());
    RustlsConfig::from_pem_file(&tls.certificate, &tls.key).await.map_err(failed(what))
}
