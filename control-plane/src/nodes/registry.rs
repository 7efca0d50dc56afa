//! Who is linked to this process right now, in memory only. One link per server: a newer one replaces the
//! older.

use hoody_protocol::{id::ServerId, link::Heartbeat, link::InventoryEntry, transport::Close};
use quinn::Connection;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Locks that keep coming and going of one server's links apart; servers share them by hash.
const TURNSTILES: usize = 64;

/// Bulk connections of one server at once: the one in use, and one that is just ending.
const MAX_BULK_PER_SERVER: usize = 2;

/// What is known of a link while it is up.
#[derive(Debug)]
struct Link {
    number: u64,
    wake: Arc<Notify>,
    connection: Connection,
    unknown: Arc<[InventoryEntry]>,
    heartbeat: Option<Heartbeat>,
}

#[derive(Debug, Default)]
struct Inner {
    links: HashMap<ServerId, Link>,
    bulk: HashMap<ServerId, Vec<Connection>>,
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
    pub(super) fn add(&self, server: ServerId, connection: &Connection, wake: Arc<Notify>) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        let number = inner.next;
        let link = Link { number, wake, connection: connection.clone(), unknown: Arc::new([]), heartbeat: None };
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

    /// Keeps what the server's inventory named and the store does not know.
    pub(super) fn set_unknown(&self, server: ServerId, number: u64, unknown: Vec<InventoryEntry>) {
        if let Some(link) = self.lock().links.get_mut(&server).filter(|link| link.number == number) {
            link.unknown = unknown.into();
        }
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
            link.wake.notify_one();
        }
    }

    pub(super) fn is_linked(&self, server: ServerId) -> bool {
        self.lock().links.contains_key(&server)
    }

    pub(super) fn unknown(&self, server: ServerId) -> Arc<[InventoryEntry]> {
        self.lock().links.get(&server).map_or_else(|| Arc::new([]) as Arc<[_]>, |link| link.unknown.clone())
    }

    pub(super) fn heartbeat(&self, server: ServerId) -> Option<Heartbeat> {
        self.lock().links.get(&server).and_then(|link| link.heartbeat)
    }
}
