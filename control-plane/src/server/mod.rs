//! The running process: listeners, notifications to the service supervisor, and the orderly end.
//!
//! On SIGTERM or SIGINT no new connection is taken, requests in progress get
//! [`Config::shutdown_deadline`](crate::config::Config::shutdown_deadline), then everything ends.

mod connections;
#[cfg(test)]
mod connections_tests;
mod probe;
mod supervisor;
mod tls;

use crate::{api, app::App, error::chain, live, nodes, tasks};
use connections::HttpServer;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinHandle,
};

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
    let public = listen(app.config.http_address)?;
    let public = match &app.config.tls {
        Some(files) => public.secured(tls::load(files)?),
        None => public,
    };
    let probes = app.config.metrics_address.map(listen).transpose()?;
    // Last: it marks every server as offline, which a process that cannot serve must not do.
    let nodes = nodes::start(app.clone())
        .await
        .map_err(|error| ServeError { what: "listen for nodes".to_owned(), source: io::Error::other(error) })?;

    let probing = probes.map(|server| {
        tracing::info!(address = %server.address(), "serving metrics and probes");
        tokio::spawn(server.serve(probe::router(app.clone(), recorder), std::future::pending(), deadline))
    });
    let background = [
        tokio::spawn(live::feed::run(app.store.clone(), app.live.clone())),
        tokio::spawn(tasks::blobs::run(app.clone(), tasks::blobs::INTERVAL)),
        tokio::spawn(tasks::expiry::run(app.clone())),
        tokio::spawn(tasks::snapshots::run(app.clone())),
        tokio::spawn(tasks::keys::run(app.clone())),
        tokio::spawn(tasks::mail::run(app.clone())),
        tokio::spawn(tasks::moves::run(app.clone(), tasks::moves::INTERVAL)),
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
    tracing::info!(address = %public.address(), tls = public.is_secured(), "serving the public API");
    let (stop, told) = oneshot::channel::<()>();
    let mut serving = tokio::spawn(public.serve(api::router(app), async { drop(told.await) }, deadline));
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
            drop(stop);
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
    ended.map_err(io::Error::other).map_err(failed("serve the public API"))
}

fn listen(address: SocketAddr) -> Result<HttpServer, ServeError> {
    HttpServer::bind(address).map_err(failed(format!("listen on {address}")))
}
