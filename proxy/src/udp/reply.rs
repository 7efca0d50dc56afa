//! Answers to containers leave with the source that the container sent to: any address, any port. The kernel takes
//! any address from a transparent socket (`IP_PKTINFO`), but the port is the one the socket is bound to. So there is
//! one socket for each port from which answers come, opened by the agent, since opening it takes capabilities that this
//! program does not have. They stay open when the agent ends: DNS goes on.

use super::packet::send_from;
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddrV4,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, sync::Notify, time::timeout};

/// Sockets that are kept; the one that was not used for longest makes room.
const MOST: usize = 1024;
/// How long the agent has to open one.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a port is not asked for again after the agent could not open it.
const PAUSE: Duration = Duration::from_secs(10);

/// The sockets, and the ports that the agent is to open one for.
#[derive(Debug)]
pub(crate) struct ReplySockets {
    state: Mutex<State>,
    wanted: Notify,
    supplied: Notify,
}

#[derive(Debug, Default)]
struct State {
    sockets: HashMap<u16, Slot>,
    wanted: BTreeSet<u16>,
}

#[derive(Debug)]
struct Slot {
    /// `None` where the agent could not open it.
    socket: Option<Arc<UdpSocket>>,
    used: Instant,
}

impl Default for ReplySockets {
    /// DNS is used by every container: its socket is asked for before any query.
    fn default() -> Self {
        let wanted = BTreeSet::from([crate::dns::PORT]);
        let state = State { sockets: HashMap::new(), wanted };
        Self { state: Mutex::new(state), wanted: Notify::new(), supplied: Notify::new() }
    }
}

impl ReplySockets {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `content` from `source` to a container. False where it is dropped.
    pub(crate) async fn send(&self, source: SocketAddrV4, to: SocketAddrV4, content: &[u8]) -> bool {
        let Some(socket) = self.socket(source.port()).await else { return false };
        match send_from(&socket, source, to, content) {
            Ok(sent) => sent,
            Err(error) => {
                tracing::debug!(%source, %to, %error, "an answer cannot be sent");
                false
            }
        }
    }

    async fn socket(&self, port: u16) -> Option<Arc<UdpSocket>> {
        let supplied = async {
            loop {
                let supplied = self.supplied.notified();
                tokio::pin!(supplied);
                // From here on nothing is missed.
                supplied.as_mut().enable();
                if let Some(known) = self.known(port) {
                    return known;
                }
                supplied.await;
            }
        };
        timeout(DEADLINE, supplied).await.ok().flatten()
    }

    /// The socket, or that there is none for now; `None` where the agent has been asked.
    fn known(&self, port: u16) -> Option<Option<Arc<UdpSocket>>> {
        let mut state = self.state();
        if let Some(slot) = state.sockets.get_mut(&port)
            && (slot.socket.is_some() || slot.used.elapsed() < PAUSE)
        {
            if slot.socket.is_some() {
                slot.used = Instant::now();
            }
            return Some(slot.socket.clone());
        }
        if state.wanted.len() < MOST && state.wanted.insert(port) {
            drop(state);
            self.wanted.notify_one();
        }
        None
    }

    /// The next port that the agent is asked for.
    pub(crate) async fn wanted(&self) -> u16 {
        loop {
            if let Some(port) = self.state().wanted.pop_first() {
                return port;
            }
            self.wanted.notified().await;
        }
    }

    /// Puts a port back that was taken by an agent's connection which ended since.
    pub(crate) fn want_again(&self, port: u16) {
        let mut state = self.state();
        if !state.sockets.contains_key(&port) {
            state.wanted.insert(port);
            drop(state);
            self.wanted.notify_one();
        }
    }

    /// What the agent opened for a port, or could not open.
    pub(crate) fn supply(&self, port: u16, descriptor: Option<OwnedFd>) {
        let socket = descriptor.and_then(|descriptor| {
            let socket = std::net::UdpSocket::from(descriptor);
            let bound = socket.local_addr().is_ok_and(|bound| bound.port() == port);
            let usable = bound && socket.set_nonblocking(true).is_ok();
            usable.then(|| UdpSocket::from_std(socket).ok().map(Arc::new)).flatten()
        });
        {
            let mut state = self.state();
            state.wanted.remove(&port);
            if state.sockets.len() >= MOST
                && !state.sockets.contains_key(&port)
                && let Some(oldest) = state.sockets.iter().min_by_key(|(_, slot)| slot.used).map(|(port, _)| *port)
            {
                state.sockets.remove(&oldest);
            }
            state.sockets.insert(port, Slot { socket, used: Instant::now() });
        }
        self.supplied.notify_waiters();
    }
}
