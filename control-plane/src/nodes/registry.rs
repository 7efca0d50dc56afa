//! Who is linked to this process right now, in memory only. One link per server: a newer one replaces the
//! older. Also how often each server has connected lately.

use super::{pace::Pace, twin::Instance};
use hoody_protocol::{
    id::ServerId,
    link::Heartbeat,
    transport::{Close, EXEC_STREAMS},
};
use quinn::Connection;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::Instant,
};

/// Locks that keep coming and going of one server's links apart; servers share them by hash.
const TURNSTILES: usize = 64;

/// Connections that a server may make at once, and in the long run: an agent that comes back pauses longer
/// each time, and fetches images over one connection.
const ARRIVAL_BURST: f64 = 30.0;
const ARRIVALS_PER_SECOND: f64 = 1.0;
/// Servers whose arrivals are remembered before those that have been quiet are forgotten.
const ARRIVALS_KEPT: usize = 4096;

/// What a link is woken for.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// The store holds work for the dispatch.
    pub(super) work: Notify,
    /// The store holds commands for the server itself.
    pub(super) commands: Notify,
    /// The store holds decisions on unknown containers.
    pub(super) decisions: Notify,
    /// The store holds syncs of the server's containers.
    pub(super) syncs: Notify,
    /// The store holds moves of containers to the server.
    pub(super) moves: Notify,
}
/// Bulk connections of one server at once: the one in use, and one that is just ending.
const MAX_BULK_PER_SERVER: usize = 2;

/// What is known of a link while it is up.
#[derive(Debug)]
struct Link {
    number: u64,
    wakes: Arc<Wakes>,
    connection: Connection,
    instance: Instance,
    heartbeat: Option<Heartbeat>,
    /// Streams of processes, terminals and logs that may still be opened.
    exec_streams: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Inner {
    links: HashMap<ServerId, Link>,
    bulk: HashMap<ServerId, Vec<Connection>>,
    arrivals: HashMap<ServerId, Pace>,
    next: u64,
}

/// The registry. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    inner: Arc<Mutex<Inner>>,
    turnstiles: Arc<[tokio::sync::Mutex<()>]>,
    hasher: RandomState,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            turnstiles: (0..TURNSTILES).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a link of the server is registered or removed together with the store's online flag, so
    /// that the end of an old link cannot overwrite the beginning of a new one.
    pub(super) async fn turnstile(&self, server: ServerId) -> tokio::sync::MutexGuard<'_, ()> {
        let index = self.hasher.hash_one(server) as usize % self.turnstiles.len();
        self.turnstiles[index].lock().await
    }

    /// Registers a link; an older one of the same server is closed. The number identifies the link.
    pub(super) fn add(&self, server: ServerId, connection: &Connection, instance: Instance, wakes: Arc<Wakes>) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        let number = inner.next;
        let exec_streams = Arc::new(Semaphore::new(EXEC_STREAMS as usize));
        let link = Link { number, wakes, connection: connection.clone(), instance, heartbeat: None, exec_streams };
        if let Some(older) = inner.links.insert(server, link) {
            tracing::warn!(%server, older = %older.connection.remote_address(),
                newer = %connection.remote_address(), "a newer link of the server replaces the older");
            Close::Replaced.close(&older.connection);
        }
        number
    }

    /// Removes the link, unless a newer one has replaced it: then false.
    pub(super) fn remove(&self, server: ServerId, number: u64) -> bool {
        let mut inner = self.lock();
        let mine = inner.links.get(&server).is_some_and(|link| link.number == number);
        if mine {
            inner.links.remove(&server);
        }
        mine
    }

    /// Keeps the server's last heartbeat.
    pub(super) fn set_heartbeat(&self, server: ServerId, number: u64, heartbeat: Heartbeat) {
        if let Some(link) = self.lock().links.get_mut(&server).filter(|link| link.number == number) {
            link.heartbeat = Some(heartbeat);
        }
    }

    /// Registers a connection for bulk transfer. Where the server has too many, the oldest is closed: it is that of
    /// an agent which was killed, and would stand until the idle timeout, while the new one is needed now.
    pub(super) fn add_bulk(&self, server: ServerId, connection: &Connection) {
        let mut inner = self.lock();
        let connections = inner.bulk.entry(server).or_default();
        connections.push(connection.clone());
        if connections.len() > MAX_BULK_PER_SERVER {
            let oldest = connections.remove(0);
            Close::Replaced.close(&oldest);
        }
    }

    /// Counts a connection of the server; false where it has made too many of late.
    pub(super) fn arrives(&self, server: ServerId) -> bool {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.arrivals.len() >= ARRIVALS_KEPT {
            inner.arrivals.retain(|_, pace| !pace.is_full(now));
        }
        let pace = inner.arrivals.entry(server).or_insert_with(|| Pace::new(ARRIVAL_BURST, ARRIVALS_PER_SECOND));
        pace.try_take(now)
    }

    /// The link of the server: whose it is, and its connection.
    pub(super) fn link_of(&self, server: ServerId) -> Option<(Instance, Connection)> {
        self.lock().links.get(&server).map(|link| (link.instance.clone(), link.connection.clone()))
    }

    /// The server's connection, with a place for one more stream of a process, terminal or log: `None` where this
    /// process has no link of the server.
    pub(super) fn exec_stream(
        &self,
        server: ServerId,
    ) -> Option<Result<(Connection, OwnedSemaphorePermit), TryAcquireError>> {
        let inner = self.lock();
        let link = inner.links.get(&server)?;
        let permit = link.exec_streams.clone().try_acquire_owned();
        Some(permit.map(|permit| (link.connection.clone(), permit)))
    }

    /// Removes a connection for bulk transfer.
    pub(super) fn remove_bulk(&self, server: ServerId, connection: &Connection) {
        let mut inner = self.lock();
        if let Some(connections) = inner.bulk.get_mut(&server) {
            connections.retain(|other| other.stable_id() != connection.stable_id());
            if connections.is_empty() {
                inner.bulk.remove(&server);
            }
        }
    }

    /// Closes every connection of the server.
    pub(super) fn close(&self, server: ServerId, reason: Close) -> bool {
        let inner = self.lock();
        let link = inner.links.get(&server).map(|link| &link.connection);
        let bulk = inner.bulk.get(&server).into_iter().flatten();
        let mut closed = false;
        for connection in link.into_iter().chain(bulk) {
            reason.close(connection);
            closed = true;
        }
        closed
    }

    /// Servers with any connection.
    pub(super) fn connected(&self) -> Vec<ServerId> {
        let inner = self.lock();
        let mut servers: Vec<ServerId> = inner.links.keys().chain(inner.bulk.keys()).copied().collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    pub(super) fn wake(&self, server: ServerId) {
        if let Some(link) = self.lock().links.get(&server) {
            link.wakes.work.notify_one();
            link.wakes.commands.notify_one();
        }
    }

    pub(super) fn wake_for_decisions(&self, server: ServerId) {
        if let Some(link) = self.lock().links.get(&server) {
            link.wakes.decisions.notify_one();
        }
    }

    pub(super) fn wake_for_syncs(&self, server: ServerId) {
        if let Some(link) = self.lock().links.get(&server) {
            link.wakes.syncs.notify_one();
        }
    }

    pub(super) fn wake_for_moves(&self, server: ServerId) {
        if let Some(link) = self.lock().links.get(&server) {
            link.wakes.moves.notify_one();
        }
    }

    pub(super) fn is_linked(&self, server: ServerId) -> bool {
        self.lock().links.contains_key(&server)
    }

    pub(super) fn heartbeat(&self, server: ServerId) -> Option<Heartbeat> {
        self.lock().links.get(&server).and_then(|link| link.heartbeat)
    }
}
