//! [`Egress`] over the relay program: what should be is kept here, and a task of its own tells the relay whatever
//! it does not have, over a connection that is made anew whenever it ends.

use super::{
    Egress, EgressError, listener_address,
    relayed::{self, Relayed},
    routing,
};
use crate::dial::DialPolicy;
use async_trait::async_trait;
use hoody_protocol::{
    egress::{EgressStatus, Upstream},
    id::ContainerId,
};
use hoody_proxy::control::{Client, ControlError, Events, Status, open_listeners};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// Pauses between tries to reach the relay.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pause before the relay is offered again what it did not take.
const OFFER_AGAIN: Duration = Duration::from_secs(2);
/// How long [`Egress::set`] waits for the relay: a first process then finds its egress ready.
const HAND_OVER: Duration = Duration::from_secs(2);

/// The relaying of this server's containers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    dial: DialPolicy,
    /// The relay's connection, while there is one.
    client: Mutex<Option<Arc<Client>>>,
    state: Mutex<State>,
    /// Something of `wanted` changed.
    work: Notify,
    /// Something was told to the relay, or could not be.
    settled: Notify,
    news: mpsc::UnboundedSender<ContainerId>,
    changes: tokio::sync::Mutex<mpsc::UnboundedReceiver<ContainerId>>,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: not any more, and the relay does not know yet.
    wanted: BTreeMap<ContainerId, Option<Relayed>>,
    /// Of each container that is relayed; absent before anything is known.
    status: BTreeMap<ContainerId, EgressStatus>,
    /// Every container of this server, once it is known: the relay is to hold no other.
    known: Option<BTreeSet<ContainerId>>,
    /// What the relay holds; `None` while there is no connection.
    held: Option<BTreeSet<ContainerId>>,
}

impl State {
    /// Nothing more is to be expected of the relay for this container, at present.
    fn is_settled(&self, id: ContainerId) -> bool {
        match self.wanted.get(&id) {
            Some(Some(_)) => self.status.contains_key(&id),
            Some(None) => self.held.is_none(),
            None => true,
        }
    }
}

impl Relay {
    /// Keeps in touch with the relay at this control socket from now on. `dial` says where upstreams may be.
    pub fn start(socket: PathBuf, dial: DialPolicy) -> Self {
        let (news, changes) = mpsc::unbounded_channel();
        let relay = Self(Arc::new(Shared {
            socket,
            dial,
            client: Mutex::default(),
            state: Mutex::default(),
            work: Notify::new(),
            settled: Notify::new(),
            news,
            changes: tokio::sync::Mutex::new(changes),
        }));
        tokio::spawn(run(relay.0.clone()));
        relay
    }

    /// Asks a name server through the container's proxy: `server`, where none goes with the proxy. `None` where nobody
    /// answered.
    pub async fn query(&self, id: ContainerId, server: IpAddr, query: &[u8]) -> Option<Vec<u8>> {
        let client = self.0.client.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        match client.query(id, server, query).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(container = %id, error = &error as &dyn std::error::Error, "the relay was not asked");
                None
            }
        }
    }
}

#[async_trait]
impl Egress for Relay {
    async fn prepare(&self) -> Result<(), EgressError> {
        routing::ensure().await
    }

    async fn set(&self, id: ContainerId, address: Ipv4Addr, upstream: Option<&Upstream>) {
        let wanted = upstream.map(|upstream| Relayed { address, upstream: upstream.clone() });
        {
            let mut state = self.0.state();
            let known = state.wanted.get(&id) == Some(&wanted);
            let nothing = wanted.is_none() && state.held.as_ref().is_some_and(|held| !held.contains(&id));
            if known || (nothing && !state.wanted.contains_key(&id)) {
                return;
            }
            state.status.remove(&id);
            state.wanted.insert(id, wanted);
        }
        self.0.work.notify_one();
        let deadline = Instant::now() + HAND_OVER;
        loop {
            let settled = self.0.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.0.state().is_settled(id) || tokio::time::timeout_at(deadline, settled).await.is_err() {
                return;
            }
        }
    }

    fn status(&self, id: ContainerId) -> Option<EgressStatus> {
        let state = self.0.state();
        state.wanted.get(&id)?.as_ref()?;
        Some(state.status.get(&id).cloned().unwrap_or_else(relayed::relay_away))
    }

    async fn changed(&self) -> ContainerId {
        match self.0.changes.lock().await.recv().await {
            Some(id) => id,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    async fn retain(&self, known: BTreeSet<ContainerId>) {
        self.0.state().known = Some(known);
        self.0.work.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_client(&self, client: Option<Arc<Client>>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// Takes note of a status, and tells who waits for changes.
    fn note(&self, id: ContainerId, status: EgressStatus) {
        let mut state = self.state();
        if state.wanted.get(&id).is_some_and(Option::is_some) && state.status.get(&id) != Some(&status) {
            tracing::info!(container = %id, working = status.working, cause = ?status.cause, "egress through the proxy");
            state.status.insert(id, status);
            // The receiver lives as long as `self`.
            let _ = self.news.send(id);
        }
    }
}

/// Connects, tells, and connects again, for as long as the agent runs.
async fn run(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match Client::connect(&shared.socket).await {
            Ok((client, events)) => {
                pause = FIRST_PAUSE;
                let client = Arc::new(client);
                shared.set_client(Some(client.clone()));
                let ended = Session { shared: &shared, client, held: BTreeMap::new() }.run(events).await;
                shared.set_client(None);
                tracing::warn!(
                    error = &ended as &dyn std::error::Error,
                    "the relay is gone; containers that use it are cut off"
                );
            }
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "the relay cannot be reached"),
        }
        away(&shared);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // What is asked for meanwhile is told at once that there is no relay.
            () = shared.work.notified() => away(&shared),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Without a relay nothing is relayed.
fn away(shared: &Shared) {
    let wanted: Vec<_> = {
        let mut state = shared.state();
        state.held = None;
        state.wanted.iter().filter(|(_, wanted)| wanted.is_some()).map(|(id, _)| *id).collect()
    };
    wanted.into_iter().for_each(|id| shared.note(id, relayed::relay_away()));
    shared.settled.notify_waiters();
}

/// One connection to the relay.
struct Session<'a> {
    shared: &'a Shared,
    client: Arc<Client>,
    /// What the relay has, by revision.
    held: BTreeMap<ContainerId, u64>,
}

impl Session<'_> {
    /// Goes on until the connection has ended; says why.
    async fn run(mut self, mut events: Events) -> ControlError {
        match self.client.list().await {
            Ok(listed) => {
                for status in listed {
                    self.held.insert(status.container, status.revision);
                    self.told(&status);
                }
            }
            Err(error) => return error,
        }
        let mut allowed = self.shared.dial.allowed();
        loop {
            allowed.mark_unchanged();
            let again = match self.tell().await {
                Ok(all) => !all,
                Err(error) => return error,
            };
            self.shared.state().held = Some(self.held.keys().copied().collect());
            self.shared.settled.notify_waiters();
            tokio::select! {
                () = self.shared.work.notified() => {}
                Ok(()) = allowed.changed() => {}
                () = tokio::time::sleep(OFFER_AGAIN), if again => {}
                status = events.next() => match status {
                    Some(status) => self.told(&status),
                    None => return ControlError::Ended,
                },
            }
        }
    }

    /// Notes what the relay says of a container, where it is about what the container should have now.
    fn told(&self, status: &Status) {
        let wanted = self.shared.state().wanted.get(&status.container).cloned().flatten();
        if wanted.is_some_and(|wanted| wanted.revision(&self.allowed()) == status.revision) {
            self.shared.note(status.container, relayed::told(&status.health));
        }
    }

    /// Tells the relay what it does not have; false where it did not take something.
    async fn tell(&mut self) -> Result<bool, ControlError> {
        let (wanted, known) = {
            let state = self.shared.state();
            (state.wanted.clone(), state.known.clone())
        };
        let stray =
            |id: &&ContainerId| known.as_ref().is_some_and(|known| !known.contains(id)) && !wanted.contains_key(id);
        let strays: Vec<_> = self.held.keys().filter(stray).copied().collect();
        let unwanted = wanted.iter().filter(|(_, wanted)| wanted.is_none()).map(|(id, _)| *id);
        for id in unwanted.chain(strays) {
            self.client.remove(id).await?;
            self.held.remove(&id);
            hoody_fault::point!("egress.removed");
            let mut state = self.shared.state();
            if state.wanted.get(&id) == Some(&None) {
                state.wanted.remove(&id);
            }
        }
        let mut all = true;
        for (id, relayed) in wanted.into_iter().filter_map(|(id, wanted)| Some((id, wanted?))) {
            if self.held.get(&id) == Some(&relayed.revision(&self.allowed())) {
                if !self.shared.state().status.contains_key(&id) {
                    self.look().await?;
                }
                continue;
            }
            match self.hand_over(id, &relayed).await {
                Ok(()) => self.look().await?,
                Err(HandOver::Relay(error @ ControlError::Refused(_))) => {
                    tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "the relay refused a container");
                    // What it may have of the container is older: that is not what was asked for.
                    self.client.remove(id).await?;
                    self.held.remove(&id);
                    all = false;
                    self.shared.note(id, relayed::not_handed_over());
                }
                Err(HandOver::Relay(error)) => return Err(error),
                Err(HandOver::Own(error)) => {
                    tracing::warn!(container = %id, error = error.as_ref() as &dyn std::error::Error, "a container's listeners were not made");
                    all = false;
                    self.shared.note(id, relayed::not_handed_over());
                }
            }
        }
        Ok(all)
    }

    async fn hand_over(&mut self, id: ContainerId, relayed: &Relayed) -> Result<(), HandOver> {
        let (allowed, mut own) = (self.allowed(), self.shared.dial.own());
        own.truncate(hoody_proxy::control::policy::RANGES);
        let egress = relayed.for_relay(id, &allowed, own).map_err(|error| HandOver::Own(error.into()))?;
        let revision = egress.revision;
        let listeners = match self.held.contains_key(&id) {
            true => None,
            false => {
                let opened = open_listeners(listener_address(relayed.address));
                Some(opened.map_err(|error| HandOver::Own(error.into()))?)
            }
        };
        hoody_fault::point!("egress.handing_over");
        self.client.set(egress, listeners).await.map_err(HandOver::Relay)?;
        hoody_fault::point!("egress.handed_over");
        self.held.insert(id, revision);
        Ok(())
    }

    /// Asks the relay how everything is.
    async fn look(&self) -> Result<(), ControlError> {
        self.client.list().await?.iter().for_each(|status| self.told(status));
        Ok(())
    }

    fn allowed(&self) -> Vec<IpNet> {
        self.shared.dial.allowed().borrow().clone()
    }
}

/// Why a container was not handed over.
enum HandOver {
    Relay(ControlError),
    Own(Box<dyn std::error::Error + Send + Sync>),
}
