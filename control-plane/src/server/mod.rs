//! The running process: listeners, notifications to the service supervisor, and the orderly end.
//!
//! On SIGTERM or SIGINT no new connection is taken, requests in progress get
//! [`Config::shutdown_deadline`](crate::config::Config::shutdown_deadline), then everything ends.

mod probe;
mod supervisor;

use crate::{api, app::App, config::Tls, nodes, tasks};
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
};
use tokio::signal::unix::{SignalKind, signal};

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
    let (http_address, deadline) = (app.config.http_address, app.config.shutdown_deadline);
    // Everything that can fail for want of a port or a file fails before readiness is announced.
    let listener = bind(http_address)?;
    let tls = match &app.config.tls {
        Some(tls) => Some(load_tls(tls).await?),
        None => None,
    };
    let probes = app.config.metrics_address.map(bind).transpose()?;
    let nodes = nodes::start(app.clone())
        .await
        .map_err(|error| ServeError { what: "listen for nodes".to_owned(), source: io::Error::other(error) })?;
    tracing::info!(address = ?nodes.local_address(), "listening for nodes");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;

    let handle: Handle<SocketAddr> = Handle::new();
    let probe_handle: Handle<SocketAddr> = Handle::new();
    let probing = probes.map(|listener| {
        tracing::info!(address = ?listener.local_addr().ok(), "serving metrics and probes");
        let service = probe::router(app.clone(), recorder).into_make_service();
        let server = axum_server::from_tcp(listener).map(|server| server.handle(probe_handle.clone()));
        tokio::spawn(async move {
            match server {
                Ok(server) => server.serve(service).await,
                Err(error) => Err(error),
            }
        })
    });
    let collecting = tokio::spawn(tasks::blobs::run(app.clone(), tasks::blobs::INTERVAL));
    tracing::info!(address = %http_address, tls = tls.is_some(), "serving the public API");
    let service = api::router(app).into_make_service_with_connect_info::<SocketAddr>();
    let server =
        axum_server::from_tcp(listener).map_err(failed("take over the public listener"))?.handle(handle.clone());
    let mut serving = match tls {
        Some(config) => tokio::spawn(async move { server.acceptor(RustlsAcceptor::new(config)).serve(service).await }),
        None => tokio::spawn(async move { server.serve(service).await }),
    };
    let watchdog = supervisor::ready();

    let ended_early = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = &mut serving => Some(ended),
    };
    supervisor::stopping();
    let outcome = match ended_early {
        Some(ended) => ended,
        None => {
            tracing::info!(deadline_s = deadline.as_secs(), "stopping: waiting for requests in progress");
            handle.graceful_shutdown(Some(deadline));
            serving.await
        }
    };
    // After the requests, which may be waiting for a node.
    nodes.shutdown().await;
    if let Some(probing) = probing {
        probe_handle.shutdown();
        let _ = probing.await;
    }
    watchdog.abort();
    collecting.abort();
    outcome
        .map_err(|error| failed("serve the public API")(io::Error::other(error)))?
        .map_err(failed("serve the public API"))
}

fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).map_err(failed(format!("listen on {address}")))?;
    listener.set_nonblocking(true).map_err(failed(format!("listen on {address}")))?;
    Ok(listener)
}

async fn load_tls(tls: &Tls) -> Result<RustlsConfig, ServeError> {
    let what = format!("load certificate {} and key {}", tls.certificate.display(), tls.key.display());
    RustlsConfig::from_pem_file(&tls.certificate, &tls.key).await.map_err(failed(what))
}
