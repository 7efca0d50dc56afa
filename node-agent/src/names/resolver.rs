//! [`Names`]: a task for each name of a container, which asks, tells the packet filter, and waits.

use super::{Names, Path, ask::Ask, schedule};
use crate::{
    dial::DialPolicy,
    firewall::{Answer, Firewall},
};
use async_trait::async_trait;
use hoody_protocol::id::ContainerId;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Questions of one container at a time.
const AT_ONCE: usize = 8;
/// How long [`Names::set`] waits for first answers.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// The resolver of this server's containers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ask: Ask,
    dial: DialPolicy,
    firewall: Arc<dyn Firewall>,
    containers: Mutex<BTreeMap<ContainerId, Kept>>,
}

/// A container's names.
#[derive(Debug)]
struct Kept {
    path: Path,
    turns: Arc<Semaphore>,
    names: BTreeMap<String, Name>,
}

/// A name's task, which ends when this is dropped.
#[derive(Debug)]
struct Name {
    task: JoinHandle<()>,
    /// True once there was an answer, or a failure.
    tried: watch::Receiver<bool>,
}

impl Drop for Name {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// Resolves with `ask` and tells `firewall` what `dial` lets names lead to.
    pub fn new(ask: Ask, dial: DialPolicy, firewall: Arc<dyn Firewall>) -> Self {
        Self(Arc::new(Shared { ask, dial, firewall, containers: Mutex::default() }))
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Kept>> {
        self.0.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it so; gives what tells of the first answers of those names that have none yet.
    fn keep(&self, id: ContainerId, hosts: BTreeSet<String>, path: Path) -> Vec<watch::Receiver<bool>> {
        let mut containers = self.containers();
        if hosts.is_empty() {
            containers.remove(&id);
            return Vec::new();
        }
        let kept = containers.entry(id).or_insert_with(|| Kept {
            path: path.clone(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            names: BTreeMap::new(),
        });
        if kept.path != path {
            // Another way may lead elsewhere: everything is asked anew.
            kept.names.clear();
            kept.path = path;
        }
        kept.names.retain(|host, _| hosts.contains(host));
        for host in hosts {
            let (shared, path, turns) = (self.0.clone(), kept.path.clone(), kept.turns.clone());
            kept.names.entry(host).or_insert_with_key(|host| {
                let (sender, tried) = watch::channel(false);
                let task = tokio::spawn(follow(shared, id, host.clone(), path, turns, sender));
                Name { task, tried }
            });
        }
        kept.names.values().map(|name| name.tried.clone()).filter(|tried| !*tried.borrow()).collect()
    }
}

#[async_trait]
impl Names for Resolver {
    async fn set(&self, id: ContainerId, hosts: BTreeSet<String>, path: Path) {
        let waiting = self.keep(id, hosts, path);
        let all = async {
            for mut tried in waiting {
                // Ends too where the task did.
                let _ = tried.wait_for(|tried| *tried).await;
            }
        };
        // What takes longer is closed until it is known.
        let _ = timeout(FIRST_ANSWERS, all).await;
    }
}

/// Keeps one name resolved.
async fn follow(
    shared: Arc<Shared>,
    id: ContainerId,
    host: String,
    path: Path,
    turns: Arc<Semaphore>,
    tried: watch::Sender<bool>,
) {
    let mut failures = 0;
    let mut allowed = shared.dial.allowed();
    loop {
        allowed.mark_unchanged();
        let answer = match turns.acquire().await {
            Ok(_turn) => shared.ask.resolve(id, &host, &path).await,
            Err(_) => return,
        };
        let pause = match answer {
            Some((addresses, ttl)) => {
                if failures > 0 {
                    tracing::info!(container = %id, host, "a name in a rule is resolved again");
                }
                failures = 0;
                tell(&shared, id, &host, &addresses, ttl).await;
                schedule::again(ttl)
            }
            None => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(container = %id, host, "a name in a rule is not resolved; what it allows closes");
                }
                schedule::retry(failures)
            }
        };
        tried.send_replace(true);
        tokio::select! {
            () = sleep(pause) => {}
            // What the operator allows has changed.
            Ok(()) = allowed.changed() => {}
        }
    }
}

async fn tell(shared: &Shared, id: ContainerId, host: &str, found: &[Ipv4Addr], ttl: Option<Duration>) {
    let rules = shared.dial.rules();
    let addresses: BTreeSet<_> = found.iter().copied().collect();
    let permitted = addresses.iter().copied().filter(|address| match rules.check(IpAddr::V4(*address)) {
        Ok(()) => true,
        Err(why) => {
            tracing::warn!(container = %id, host, %address, %why, "a name in a rule leads where none may lead");
            false
        }
    });
    let answer = Answer { permitted: permitted.collect(), addresses, holds: schedule::holds(ttl) };
    if let Err(error) = shared.firewall.resolved(id, host, answer).await {
        tracing::warn!(container = %id, host, error = &error as &dyn std::error::Error, "an answer was not put in force");
    }
}
