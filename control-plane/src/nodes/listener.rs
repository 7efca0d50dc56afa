//! The UDP listener: admits connections, gives each its task, and ends them all at shutdown.
//!
//! Under load, clients prove their address before their handshake costs anything; handshakes and
//! connections are bounded.

use super::{
    authority::{self, Authorities},
    bulk, enrol, link,
    replicas::ReplicaListener,
    watch,
};
use crate::{app::App, store};
use hoody_protocol::{
    id::ServerId,
    image::Digest,
    transport::{self, Admitted, AnyPeer, AuthorityError, Close, TransportError},
};
use quinn::{Connection, Endpoint, Incoming};
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch as signal},
    task::{JoinHandle, JoinSet},
};

/// Handshakes at once.
const MAX_HANDSHAKES: usize = 256;
/// From this many on, a client proves its address first.
const VALIDATE_FROM: usize = 64;
/// Time for a handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Connections at once.
const MAX_CONNECTIONS: usize = 25_000;
/// The time for each of the nodes that dial again after an orderly end: what a processor needs for a handshake and a
/// hello, and as much again for all else.
const HANDSHAKE_PACE: Duration = Duration::from_millis(4);
/// Validity of our own certificate; it is made anew at every start.
const LEAF_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Age at which our own certificate is replaced.
const LEAF_RENEWAL: Duration = Duration::from_secs(10 * 24 * 60 * 60);
/// Time for connections to end at shutdown.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Why the nodes' side cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// No authority.
    #[error("open the node authority")]
    Authority(#[from] authority::OpenError),
    /// No certificate of our own.
    #[error("issue the control plane's certificate")]
    Leaf(#[from] AuthorityError),
    /// No TLS configuration.
    #[error("configure the node listener")]
    Transport(#[from] TransportError),
    /// The address cannot be listened on.
    #[error("listen for nodes on udp {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address for other replicas cannot be listened on.
    #[error("listen for other replicas on udp {address}")]
    Replicas {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed.
    #[error("prepare the servers' rows")]
    Store(#[from] store::StoreError),
}

/// What the tasks of connections share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) app: App,
    /// Who vouches for nodes and for us; changes while one takes another's place.
    pub(super) authorities: signal::Receiver<Arc<Authorities>>,
    /// This process among those that serve.
    pub(super) replica: Arc<str>,
}

impl Context {
    /// The authorities now.
    pub(super) fn present(&self) -> Arc<Authorities> {
        self.authorities.borrow().clone()
    }
}

/// The running listener.
#[derive(Debug)]
pub struct NodesHandle {
    endpoint: Endpoint,
    replica_address: Option<SocketAddr>,
    authorities: signal::Receiver<Arc<Authorities>>,
    stop: signal::Sender<bool>,
    task: JoinHandle<()>,
}

impl NodesHandle {
    /// Where the listener is; the port is known here even where the settings say 0.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Where other replicas connect; `None`: they do not.
    pub fn replica_address(&self) -> Option<SocketAddr> {
        self.replica_address
    }

    /// Digest of the certificate of the authority that vouches for us.
    pub fn authority(&self) -> Digest {
        self.authorities.borrow().present.digest()
    }

    /// Closes every link such that its agent reconnects at once, and waits for their tasks.
    pub async fn shutdown(self) {
        // The receiver is in the task; where that is gone, all is done already.
        let _ = self.stop.send(true);
        if tokio::time::timeout(SHUTDOWN_DEADLINE, self.task).await.is_err() {
            tracing::warn!("some links did not end in time");
        }
    }
}

/// Starts listening for nodes.
pub async fn start(app: App) -> Result<NodesHandle, NodesError> {
    let authorities = Arc::new(authority::open(&app.store, &app.keys).await?);
    let replica = app.replica.clone();
    let secret = authority::reset_secret(&app.store, &app.keys).await?;
    let replicas = ReplicaListener::open(&app, &authorities, &secret)?;
    let replica_address = replicas.as_ref().and_then(ReplicaListener::local_address);
    // Nobody is linked to a process that has just begun; servers of other replicas stay online.
    store::replica::begin(&app.store, &replica, app.nodes.replicas.announced()).await?;
    let config = server_config(&authorities)?;
    let address = app.config.node_address;
    let endpoint =
        transport::listen(address, config, &secret).map_err(|source| NodesError::Listen { address, source })?;
    let digest = authorities.present.digest();
    tracing::info!(address = %endpoint.local_addr().unwrap_or(address), authority = %digest, "listening for nodes");
    let (changes, authorities) = signal::channel(authorities);
    let context = Context { app, authorities: authorities.clone(), replica };
    let (stop, stopped) = signal::channel(false);
    let inside = replicas.map(|replicas| tokio::spawn(replicas.run(context.clone(), stopped.clone())));
    let task = tokio::spawn(run(context, endpoint.clone(), changes, stopped, inside));
    Ok(NodesHandle { endpoint, replica_address, authorities, stop, task })
}

fn server_config(authorities: &Authorities) -> Result<quinn::ServerConfig, NodesError> {
    let identity = authorities.present.issue_server(LEAF_LIFETIME, SystemTime::now())?;
    // Whether a node is let in is decided at its hello, where the refusal can say why.
    Ok(transport::server_config(identity, &authorities.trusted(), Arc::new(AnyPeer))?)
}

async fn run(
    context: Context,
    endpoint: Endpoint,
    changes: signal::Sender<Arc<Authorities>>,
    mut stopped: signal::Receiver<bool>,
    inside: Option<JoinHandle<()>>,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    let mut renewal = tokio::time::interval_at(tokio::time::Instant::now() + LEAF_RENEWAL, LEAF_RENEWAL);
    let watcher = tokio::spawn(watch::run(context.clone(), changes));
    let mut authorities = context.authorities.clone();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                if let Some((incoming, permits)) = accept(incoming, &handshakes, &connections) {
                    tasks.spawn(serve(context.clone(), incoming, permits));
                }
            }
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(error = %error, "the task of a connection failed");
                }
            }
            _ = renewal.tick() => renew_own(&context, &endpoint),
            Ok(()) = authorities.changed() => {
                renew_own(&context, &endpoint);
                tracing::info!(authority = %context.present().present.digest(), trusted = context.present().trusted().len(),
                    "the authorities for nodes changed");
            }
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    // Who dials from now on gets no answer, and asks again after a second, by QUIC's own pauses: a closed endpoint
    // would refuse, and send each agent into its growing pause before the next process listens.
    endpoint.set_server_config(None);
    Close::restart(&endpoint, HANDSHAKE_PACE * u32::try_from(endpoint.open_connections()).unwrap_or(u32::MAX));
    while tasks.join_next().await.is_some() {}
    watcher.abort();
    if let Some(inside) = inside {
        let _ = inside.await;
    }
    if let Err(error) = store::replica::end(&context.app.store, &context.replica).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "give up the lease");
    }
    endpoint.wait_idle().await;
}

fn renew_own(context: &Context, endpoint: &Endpoint) {
    match server_config(&context.present()) {
        Ok(config) => endpoint.set_server_config(Some(config)),
        Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "renew our certificate"),
    }
}

/// Permits for a handshake and for the connection. Where handshakes are scarce it asks for proof of the
/// address, and passes over those who have given it: QUIC sends the first packet again after one, two, four
/// seconds, so that agents that all come back at once spread by themselves. A refusal would send each of
/// them into its own growing pause. Refused are connections beyond their number.
fn accept(
    incoming: Incoming,
    handshakes: &Arc<Semaphore>,
    connections: &Arc<Semaphore>,
) -> Option<(Incoming, (OwnedSemaphorePermit, OwnedSemaphorePermit))> {
    let busy = MAX_HANDSHAKES - handshakes.available_permits();
    if busy >= VALIDATE_FROM && !incoming.remote_address_validated() {
        // Fails only where the address is validated already.
        let _ = incoming.retry();
        return None;
    }
    let Ok(connection) = connections.clone().try_acquire_owned() else {
        metrics::counter!("hoody_node_connections_refused_total").increment(1);
        incoming.refuse();
        return None;
    };
    let Ok(handshake) = handshakes.clone().try_acquire_owned() else {
        metrics::counter!("hoody_node_handshakes_deferred_total").increment(1);
        incoming.ignore();
        return None;
    };
    Some((incoming, (handshake, connection)))
}

async fn serve(
    context: Context,
    incoming: Incoming,
    (handshake, _connection_permit): (OwnedSemaphorePermit, OwnedSemaphorePermit),
) {
    let remote = incoming.remote_address();
    // What comes once, or rarely, is boxed: it would take its room for as long as the connection lives.
    let connection = match Box::pin(handshake_of(incoming)).await {
        Ok(connection) => connection,
        Err(reason) => {
            metrics::counter!("hoody_node_handshakes_failed_total").increment(1);
            tracing::info!(%remote, reason, "a handshake failed");
            return;
        }
    };
    drop(handshake);
    match transport::admit(&connection) {
        Ok(Admitted::Node(peer) | Admitted::Bulk(peer)) if !arrives(&context, peer.server) => {
            Close::Overloaded.close(&connection);
        }
        Ok(Admitted::Node(peer)) => Box::pin(link::serve(context, connection, peer)).await,
        Ok(Admitted::Bulk(peer)) => Box::pin(bulk::serve(context, connection, peer)).await,
        Ok(Admitted::Enrol) => Box::pin(enrol::serve(context, connection)).await,
        Err(error) => {
            metrics::counter!("hoody_node_handshakes_failed_total").increment(1);
            tracing::info!(%remote, error = &error as &dyn std::error::Error, "a connection was not admitted");
            Close::CertificateRequired.close(&connection);
        }
    }
}

/// False where the server has connected too often of late.
fn arrives(context: &Context, server: ServerId) -> bool {
    let welcome = context.app.nodes.registry.arrives(server);
    if !welcome {
        metrics::counter!("hoody_node_connections_refused_total").increment(1);
        tracing::warn!(%server, "the node connects too often");
    }
    welcome
}

async fn handshake_of(incoming: Incoming) -> Result<Connection, String> {
    match tokio::time::timeout(HANDSHAKE_DEADLINE, incoming).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it took longer than {} s", HANDSHAKE_DEADLINE.as_secs())),
    }
}
