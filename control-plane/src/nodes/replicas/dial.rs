//! Connections to other replicas, kept while they last: one of each lane to each replica. A replica is dialled under the
//! name that its certificate must have, so that an address which another one has taken over leads nowhere.

use super::Lane;
use crate::{nodes::known, store::replica::Holder};
use hoody_protocol::transport::replica_name;
use quinn::{ClientConfig, Connection, Endpoint};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Time for a connection, with its handshake.
const DIAL_DEADLINE: Duration = Duration::from_millis(1500);
/// Whoever gives up before the dial does would leave no trace of its failure, and the next would dial again.
const _: () = assert!(DIAL_DEADLINE.as_millis() < known::DEADLINE.as_millis());
/// A replica that was not reached is not dialled again before this: many who ask for it would wait one after the other.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections that are remembered before those that have ended are forgotten.
const KEPT: usize = 64;

/// Why another replica is not reached.
#[derive(Debug, thiserror::Error)]
pub(in crate::nodes) enum DialError {
    #[error("it announces no address, or this replica does not")]
    NoAddress,
    #[error("resolve its address {address}")]
    Resolve { address: String, source: io::Error },
    #[error("its address {0} is of another family than this replica's")]
    Family(String),
    #[error("it was not reached a moment ago")]
    Lately,
    #[error("it did not answer within {DIAL_DEADLINE:?}")]
    Deadline,
    #[error("dial it")]
    Dial(#[from] quinn::ConnectError),
    #[error("connect to it")]
    Connect(#[from] quinn::ConnectionError),
}

/// The configurations that connections are made with.
#[derive(Debug, Clone)]
pub(super) struct Configs {
    pub(super) talk: ClientConfig,
    pub(super) bulk: ClientConfig,
}

/// A connection to another replica.
#[derive(Debug, Clone)]
pub(in crate::nodes) struct Dialled {
    pub(in crate::nodes) connection: Connection,
    /// Places for what lasts as long as a client likes; the other streams are for what does not.
    pub(super) lasting: Arc<Semaphore>,
}

/// Dials, and keeps what it dialled.
#[derive(Debug)]
pub(super) struct Dialler {
    endpoint: Endpoint,
    /// With a number that grows: connections of earlier ones are replaced.
    configs: RwLock<(u64, Configs)>,
    peers: Mutex<HashMap<(String, Lane), Peer>>,
}

/// Held while it is dialled, so that it is dialled once.
type Peer = Arc<tokio::sync::Mutex<State>>;

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Up {
        dialled: Dialled,
        number: u64,
    },
    Failed(Instant),
}

impl Dialler {
    pub(super) fn new(endpoint: Endpoint, configs: Configs) -> Self {
        Self { endpoint, configs: RwLock::new((0, configs)), peers: Mutex::default() }
    }

    /// Takes other configurations from now on. What goes on over the connections of the earlier ones goes on.
    pub(super) fn renew(&self, configs: Configs) {
        let mut now = self.configs.write().unwrap_or_else(PoisonError::into_inner);
        *now = (now.0 + 1, configs);
    }

    pub(super) async fn connection(&self, holder: &Holder, lane: Lane) -> Result<Dialled, DialError> {
        let address = holder.address.as_deref().ok_or(DialError::NoAddress)?;
        let peer = self.peer(&holder.replica, lane);
        let mut state = peer.lock().await;
        let (number, config) = {
            let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
            (configs.0, if lane == Lane::Bulk { configs.1.bulk.clone() } else { configs.1.talk.clone() })
        };
        match &*state {
            State::Up { dialled, number: of } if *of == number && dialled.connection.close_reason().is_none() => {
                return Ok(dialled.clone());
            }
            State::Failed(at) if at.elapsed() < PAUSE => return Err(DialError::Lately),
            _ => {}
        }
        let dialled = timeout(DIAL_DEADLINE, self.dial(&holder.replica, address, config)).await;
        match dialled.unwrap_or(Err(DialError::Deadline)) {
            Ok(connection) => {
                let dialled = Dialled { connection, lasting: Arc::new(Semaphore::new(lane.lasting())) };
                *state = State::Up { dialled: dialled.clone(), number };
                Ok(dialled)
            }
            Err(error) => {
                *state = State::Failed(Instant::now());
                Err(error)
            }
        }
    }

    async fn dial(&self, replica: &str, address: &str, config: ClientConfig) -> Result<Connection, DialError> {
        let unresolved = |source| DialError::Resolve { address: address.to_owned(), source };
        let found = tokio::net::lookup_host(address).await.map_err(unresolved)?;
        let local = self.endpoint.local_addr().map_err(unresolved)?;
        let same_family = |address: &SocketAddr| address.is_ipv4() == local.is_ipv4();
        let target = { found }.find(same_family).ok_or_else(|| DialError::Family(address.to_owned()))?;
        Ok(self.endpoint.connect_with(config, target, &replica_name(replica))?.await?)
    }

    fn peer(&self, replica: &str, lane: Lane) -> Peer {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= KEPT {
            peers.retain(|_, peer| {
                let ended = peer.try_lock().is_ok_and(|state| match &*state {
                    State::Up { dialled, .. } => dialled.connection.close_reason().is_some(),
                    State::New | State::Failed(_) => true,
                });
                !ended
            });
        }
        peers.entry((replica.to_owned(), lane)).or_default().clone()
    }
}
