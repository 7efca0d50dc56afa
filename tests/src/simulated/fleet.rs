//! Many simulated agents, each kept connected as a real one keeps itself: a lost link is dialled again
//! after a pause that grows from 0.2 s to 30 s, half of it random.

use super::agent::{End, Identified};
use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

/// Pauses before a lost link is dialled again: those of the real agent.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Sockets that all agents share.
const SOCKETS: usize = 16;
/// Receive and send buffer of a socket.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// What agents have seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Links that are up.
    pub up: usize,
    /// Links that came up, ever.
    pub accepted: usize,
    /// Connections that did not come about.
    pub not_connected: usize,
    /// Hellos that were refused or not answered in time.
    pub not_accepted: usize,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    up: AtomicUsize,
    accepted: AtomicUsize,
    not_connected: AtomicUsize,
    not_accepted: AtomicUsize,
    changed: Notify,
}

impl Shared {
    pub(super) fn up(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.up.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn down(&self) {
        self.up.fetch_sub(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }
}

/// Agents that are kept connected until this is dropped.
#[derive(Debug)]
pub struct Fleet {
    address: SocketAddr,
    endpoints: Vec<Endpoint>,
    shared: Arc<Shared>,
    agents: JoinSet<()>,
}

impl Fleet {
    /// A fleet without agents, whose control plane listens for nodes on `address`.
    pub fn new(address: SocketAddr) -> Result<Self> {
        let endpoints = (0..SOCKETS).map(|_| endpoint()).collect::<Result<_>>()?;
        Ok(Self { address, endpoints, shared: Arc::default(), agents: JoinSet::new() })
    }

    /// The socket of agent number `index`.
    pub fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index % SOCKETS]
    }

    /// Keeps an agent connected from now on.
    pub fn keep(&mut self, agent: Arc<Identified>) {
        let endpoint = self.endpoint(self.agents.len()).clone();
        let (address, shared) = (self.address, self.shared.clone());
        self.agents.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let mut spread = Duration::ZERO;
                match agent.session(&endpoint, address, &shared).await {
                    End::Down(told) => {
                        pause = FIRST_PAUSE;
                        spread = told.mul_f64(rand::random());
                    }
                    End::NotConnected => {
                        shared.not_connected.fetch_add(1, Ordering::Relaxed);
                    }
                    End::NotAccepted => {
                        shared.not_accepted.fetch_add(1, Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(spread + pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// What was seen so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let Shared { up, accepted, not_connected, not_accepted, .. } = &*self.shared;
        Counts {
            up: read(up),
            accepted: read(accepted),
            not_connected: read(not_connected),
            not_accepted: read(not_accepted),
        }
    }

    /// Waits until every agent's link is up, at most until `deadline`; whether it is.
    pub async fn all_up(&self, deadline: Instant) -> bool {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.counts().up == self.agents.len() {
                return true;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return false;
            }
        }
    }
}

fn endpoint() -> Result<Endpoint> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES)?;
    Ok(Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?)
}
