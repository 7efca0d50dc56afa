//! Who listens to which record.

use super::{
    subscription::Subscription,
    witness::{Witness, about_rights},
};
use crate::{event::Event, store::event::Filter};
use hoody_protocol::id::{ProjectId, UserId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, mpsc};

/// Events that a listener may be behind.
const QUEUE: usize = 256;

/// Listeners of one user in this process.
const MAX_PER_USER: usize = 1_000;

/// Why nobody can listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The process is starting or ending.
    NotRunning,
    /// The user has so many listeners, as many as they may.
    TooMany(usize),
}

/// A user's record, or the operators'.
type Record = Option<UserId>;

/// The listeners of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<Hub>>);

#[derive(Debug, Default)]
struct Hub {
    /// The sequence up to which events were handed out; `None`: the feed does not run.
    delivered: Option<i64>,
    listeners: HashMap<Record, Vec<Listener>>,
    /// By whose record they look at.
    witnesses: HashMap<UserId, Vec<(u64, Arc<Notify>)>>,
    next_id: u64,
    closed: bool,
}

#[derive(Debug)]
struct Listener {
    id: u64,
    queue: mpsc::Sender<Arc<Event>>,
}

impl Live {
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to what the filter lets through: behind `resume_after`, or from now on.
    pub fn subscribe(&self, filter: Filter, resume_after: Option<i64>) -> Result<Subscription, Refused> {
        let mut hub = self.hub();
        let delivered = hub.delivered.filter(|_| !hub.closed).ok_or(Refused::NotRunning)?;
        let own = hub.listeners.get(&filter.owner).map_or(0, Vec::len);
        if filter.owner.is_some() && own >= MAX_PER_USER {
            return Err(Refused::TooMany(MAX_PER_USER));
        }
        let (queue, receiver) = mpsc::channel(QUEUE);
        let id = hub.next_id;
        hub.next_id += 1;
        for record in records(&filter) {
            hub.listeners.entry(record).or_default().push(Listener { id, queue: queue.clone() });
        }
        Ok(Subscription::new(self.clone(), id, filter, receiver, resume_after.unwrap_or(delivered), delivered))
    }

    pub(super) fn unsubscribe(&self, id: u64, filter: &Filter) {
        let mut hub = self.hub();
        for record in records(filter) {
            if let Some(listeners) = hub.listeners.get_mut(&record) {
                listeners.retain(|listener| listener.id != id);
                if listeners.is_empty() {
                    hub.listeners.remove(&record);
                }
            }
        }
    }

    /// Watches what may change the rights of the caller, or of anybody in what `owner` owns.
    pub fn witness(&self, caller: UserId, owner: UserId) -> Witness {
        let mut hub = self.hub();
        let id = hub.next_id;
        hub.next_id += 1;
        let (users, changed) = ([caller, owner], Arc::new(Notify::new()));
        for user in users {
            hub.witnesses.entry(user).or_default().push((id, changed.clone()));
        }
        Witness::new(self.clone(), id, users, changed)
    }

    pub(super) fn dismiss(&self, id: u64, users: [UserId; 2]) {
        let mut hub = self.hub();
        for user in users {
            if let Some(witnesses) = hub.witnesses.get_mut(&user) {
                witnesses.retain(|(other, _)| *other != id);
                if witnesses.is_empty() {
                    hub.witnesses.remove(&user);
                }
            }
        }
    }

    /// Hands out published events, in their order: to those in whose record each is, and to the `readers` of its
    /// project.
    pub(super) fn deliver(&self, events: Vec<Event>, readers: &HashMap<ProjectId, Vec<UserId>>) {
        let mut hub = self.hub();
        for event in events {
            if let Some(owner) = event.owner.filter(|_| about_rights(&event)) {
                hub.witnesses.get(&owner).into_iter().flatten().for_each(|(_, changed)| changed.notify_one());
            }
            let event = Arc::new(event);
            if event.sequence.is_some() {
                hub.delivered = event.sequence;
            }
            let shared = event.project.and_then(|project| readers.get(&project)).into_iter().flatten();
            let others = shared.map(|reader| Some(*reader)).filter(|reader| *reader != event.owner);
            for record in others.chain([event.owner]) {
                let Some(listeners) = hub.listeners.get_mut(&record) else { continue };
                // Whoever does not keep up finds its queue closed at the end of what is in it.
                listeners.retain(|listener| listener.queue.try_send(event.clone()).is_ok());
            }
        }
    }

    /// Without listeners nothing need be read: goes on from `sequence`. False where there are some.
    pub(super) fn skip_to(&self, sequence: i64) -> bool {
        let mut hub = self.hub();
        let idle = hub.listeners.is_empty() && hub.witnesses.is_empty();
        if idle || hub.delivered.is_none() {
            hub.delivered = Some(sequence);
        }
        idle
    }

    /// Ends every subscription, and takes no more.
    pub fn close(&self) {
        let mut hub = self.hub();
        hub.closed = true;
        hub.listeners.clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.hub().closed
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.hub().listeners.values().map(Vec::len).sum()
    }
}

fn records(filter: &Filter) -> impl Iterator<Item = Record> + use<> {
    let operators = filter.operators.then_some(None);
    filter.owner.map(Some).into_iter().chain(operators)
}
