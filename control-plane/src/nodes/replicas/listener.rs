//! The socket for other replicas: whoever shows a certificate of a replica gets in, and nobody else. The same socket
//! dials. Our own certificate is made at the start, lives in memory alone, and is made anew long before it ends.

use super::{
    Inside, announced,
    dial::{Configs, Dialler},
    serve::serve,
};
use crate::{
    app::App,
    nodes::{
        authority::Authorities,
        listener::{Context, NodesError},
    },
};
use hoody_protocol::{
    time::now_ms,
    transport::{
        self, Close, REPLICA, REPLICA_BULK, RESET_SECRET_BYTES, admit_replica, replica_client_config,
        replica_server_config,
    },
};
use quinn::{Connection, Endpoint, Incoming, ServerConfig};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// Validity of our certificate.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Age at which it is replaced. What goes on over a connection of the one before has the rest of its validity.
const RENEWAL: Duration = Duration::from_secs(8 * 60 * 60);
/// Connections at once, with those that are still in their handshake: two of each replica.
const MAX_CONNECTIONS: usize = 128;
/// Time for a handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// The socket, before anybody is let in.
#[derive(Debug)]
pub(in crate::nodes) struct ReplicaListener {
    endpoint: Endpoint,
}

impl ReplicaListener {
    /// Listens where the settings name an address; from then on the other replicas can be asked.
    pub(in crate::nodes) fn open(
        app: &App,
        authorities: &Authorities,
        secret: &[u8; RESET_SECRET_BYTES],
    ) -> Result<Option<Self>, NodesError> {
        let Some(address) = app.config.replica_address else { return Ok(None) };
        let failed = |source| NodesError::Replicas { address, source };
        let (server, configs) = configs(&app.replica, authorities)?;
        let endpoint = transport::listen(address, server, secret).map_err(failed)?;
        let local = endpoint.local_addr().map_err(failed)?;
        let announced = announced(&app.config, local);
        tracing::info!(address = %local, announced, "listening for other replicas");
        let inside = Inside {
            replica: app.replica.clone(),
            announced,
            store: app.store.clone(),
            dialler: Dialler::new(endpoint.clone(), configs),
        };
        // Set once: an app is started once.
        let _ = app.nodes.replicas.0.set(inside);
        Ok(Some(Self { endpoint }))
    }

    /// Where it listens.
    pub(in crate::nodes) fn local_address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Lets other replicas in until told to stop.
    pub(in crate::nodes) async fn run(self, context: Context, mut stopped: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut renewal = tokio::time::interval_at(tokio::time::Instant::now() + RENEWAL, RENEWAL);
        let mut authorities = context.authorities.clone();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    // Who makes up addresses takes no place, and nobody hears of it.
                    if !incoming.remote_address_validated() {
                        // Fails only where the address is validated already.
                        let _ = incoming.retry();
                        continue;
                    }
                    let Ok(place) = places.clone().try_acquire_owned() else {
                        incoming.refuse();
                        continue;
                    };
                    let context = context.clone();
                    connections.spawn(async move {
                        let _place = place;
                        connect(context, incoming).await;
                    });
                }
                Some(_) = connections.join_next() => {}
                _ = renewal.tick() => self.renew(&context),
                Ok(()) = authorities.changed() => self.renew(&context),
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        self.endpoint.close(Close::Restarting.code(), b"restarting");
        connections.shutdown().await;
        self.endpoint.wait_idle().await;
    }

    fn renew(&self, context: &Context) {
        match configs(&context.replica, &context.present()) {
            Ok((server, configs)) => {
                self.endpoint.set_server_config(Some(server));
                if let Some(inside) = context.app.nodes.replicas.0.get() {
                    inside.dialler.renew(configs);
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "renew our certificate for other replicas");
            }
        }
    }
}

/// Configurations with a new certificate. The present authority issues it, as the one that every replica trusts until
/// it is retired.
fn configs(replica: &str, authorities: &Authorities) -> Result<(ServerConfig, Configs), NodesError> {
    let identity = authorities.present.issue_replica(replica, LIFETIME, SystemTime::now())?;
    let trusted = authorities.trusted();
    let talk = replica_client_config(&identity, &trusted, REPLICA)?;
    let bulk = replica_client_config(&identity, &trusted, REPLICA_BULK)?;
    Ok((replica_server_config(identity, &trusted)?, Configs { talk, bulk }))
}

async fn connect(context: Context, incoming: Incoming) {
    let remote = incoming.remote_address();
    let refused = |reason: &dyn std::fmt::Display| {
        metrics::counter!("hoody_replica_handshakes_failed_total").increment(1);
        tracing::warn!(%remote, %reason, "somebody who is no replica of ours was refused");
    };
    let connection = match tokio::time::timeout(HANDSHAKE_DEADLINE, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refused(&error),
        Err(_) => return refused(&"it did not finish its handshake"),
    };
    match admit_replica(&connection) {
        Ok(peer) => {
            tracing::debug!(replica = peer.replica, %remote, "another replica has connected");
            let left = Duration::from_millis(peer.not_after.saturating_sub(now_ms()));
            converse(context, &connection, left).await;
        }
        Err(error) => {
            Close::CertificateRequired.close(&connection);
            refused(&error);
        }
    }
}

/// Answers what the other replica asks until it goes, or its certificate ends.
async fn converse(context: Context, connection: &Connection, left: Duration) {
    let mut streams = JoinSet::new();
    let expiry = tokio::time::sleep(left);
    tokio::pin!(expiry);
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok(ends) => {
                    metrics::counter!("hoody_replica_streams_total").increment(1);
                    streams.spawn(serve(context.app.nodes.clone(), ends));
                }
                Err(_) => break,
            },
            Some(_) = streams.join_next() => {}
            () = &mut expiry => {
                Close::Expired.close(connection);
                break;
            }
        }
    }
    // Each finds its stream broken, and breaks off what it has asked of a node.
    while streams.join_next().await.is_some() {}
}
