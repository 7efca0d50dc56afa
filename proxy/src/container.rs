//! One container: its listeners, its policy in force, what it did.

use crate::{
    control::{Egress, Status},
    counts::Counts,
    dns::{Servers, Told},
    route::Route,
    shared::Shared,
    tcp, udp,
    upstream::{Session, health::Pauses, session::probe},
};
use socket2::{Socket, Type};
use std::{
    io,
    net::SocketAddrV4,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Why descriptors are not a container's listeners.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketsError {
    #[error("two descriptors are expected, not {0}")]
    Count(usize),
    #[error("the descriptors are not a listening TCP socket and a UDP socket on the same IPv4 address")]
    Kind,
    #[error("the descriptors cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// A container's listeners, checked.
#[derive(Debug)]
pub(crate) struct Sockets {
    tcp: TcpListener,
    udp: UdpSocket,
    address: SocketAddrV4,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counts: Counts,
    /// A permit for every connection.
    pub(crate) connections: Arc<Semaphore>,
    /// A permit for every DNS query being answered.
    pub(crate) queries: Arc<Semaphore>,
    state: Mutex<State>,
    ended: CancellationToken,
}

/// DNS queries of one container being answered.
const QUERIES: usize = 256;

#[derive(Debug)]
struct State {
    route: Arc<Route>,
    address: SocketAddrV4,
    /// Cancelled where other listeners take over.
    listening: CancellationToken,
    /// The tasks that have the listeners.
    listeners: Vec<JoinHandle<Option<()>>>,
}

impl Sockets {
    /// Takes descriptors that came from the agent.
    pub(crate) fn take(descriptors: Vec<OwnedFd>) -> Result<Self, SocketsError> {
        let [tcp, udp]: [OwnedFd; 2] =
            descriptors.try_into().map_err(|other: Vec<OwnedFd>| SocketsError::Count(other.len()))?;
        let (tcp, udp) = (Socket::from(tcp), Socket::from(udp));
        if tcp.r#type()? != Type::STREAM || udp.r#type()? != Type::DGRAM || !tcp.is_listener()? {
            return Err(SocketsError::Kind);
        }
        let address = tcp.local_addr()?.as_socket_ipv4().ok_or(SocketsError::Kind)?;
        if udp.local_addr()?.as_socket_ipv4() != Some(address) {
            return Err(SocketsError::Kind);
        }
        udp::prepare(&udp)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(Self { tcp: TcpListener::from_std(tcp.into())?, udp: UdpSocket::from_std(udp.into())?, address })
    }
}

impl Container {
    /// Begins to work for a container.
    pub(crate) fn start(shared: Arc<Shared>, egress: Egress, sockets: Sockets) -> Arc<Self> {
        let ended = CancellationToken::new();
        let route = new_route(&shared, egress, None, &ended);
        let state = State { route, address: sockets.address, listening: ended.child_token(), listeners: Vec::new() };
        let container = Arc::new(Self {
            connections: Arc::new(Semaphore::new(shared.config.connections_per_container)),
            queries: Arc::new(Semaphore::new(QUERIES)),
            counts: Counts::default(),
            state: Mutex::new(state),
            shared,
            ended,
        });
        container.listen(sockets);
        container
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds now.
    pub(crate) fn route(&self) -> Arc<Route> {
        self.state().route.clone()
    }

    /// Another policy. Where the upstream stays, and everything that was dialled may still be dialled, its connections
    /// go on; otherwise they end.
    pub(crate) fn change(&self, egress: Egress) {
        let mut state = self.state();
        let before = state.route.session.clone();
        let rules = egress.policy.dial_rules();
        let stays = before.upstream == egress.policy.upstream && before.keeps_to(&rules);
        state.route = new_route(&self.shared, egress, stays.then(|| before.clone()), &self.ended);
        drop(state);
        if !stays {
            before.ended.cancel();
        }
    }

    /// Takes connections and packets from these listeners and no others.
    pub(crate) fn listen(self: &Arc<Self>, sockets: Sockets) {
        let listening = self.ended.child_token();
        let tcp = tcp::listen(self.clone(), sockets.tcp);
        let udp = udp::listen(self.clone(), sockets.udp);
        let mut state = self.state();
        state.address = sockets.address;
        std::mem::replace(&mut state.listening, listening.clone()).cancel();
        state.listeners = vec![
            tokio::spawn(listening.clone().run_until_cancelled_owned(tcp)),
            tokio::spawn(listening.run_until_cancelled_owned(udp)),
        ];
    }

    /// Ends listeners, connections and associations. The listeners are closed when it returns, so that others can be
    /// opened in their place.
    pub(crate) async fn end(&self) {
        self.ended.cancel();
        let listeners = std::mem::take(&mut self.state().listeners);
        for listener in listeners {
            let _ = listener.await;
        }
    }

    pub(crate) fn status(&self) -> Status {
        let (route, listeners) = {
            let state = self.state();
            (state.route.clone(), state.address)
        };
        Status {
            container: route.egress.container,
            revision: route.egress.revision,
            listeners,
            health: route.session.health(),
            counters: self.counts.read(),
        }
    }
}

/// The route of `egress`, with the session of before where it goes on.
fn new_route(
    shared: &Arc<Shared>,
    egress: Egress,
    session: Option<Arc<Session>>,
    ended: &CancellationToken,
) -> Arc<Route> {
    let pauses = Pauses {
        first: Duration::from_millis(shared.config.retry_ms),
        longest: Duration::from_millis(shared.config.retry_max_ms),
    };
    let is_new = session.is_none();
    let upstream = egress.policy.upstream.clone();
    let session = session.unwrap_or_else(|| Arc::new(Session::new(upstream, pauses, ended.child_token())));
    let rules = egress.policy.dial_rules();
    let route = Arc::new(Route {
        shared: shared.clone(),
        egress,
        rules,
        session,
        servers: Servers::default(),
        told: Told::default(),
    });
    if is_new {
        tokio::spawn(probe(route.clone()));
    }
    route
}
