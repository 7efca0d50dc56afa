//! The containers that the proxy works for. Kept in memory alone: the agent tells a new proxy everything again.

use crate::{
    container::{Container, Sockets, SocketsError},
    control::{Egress, Status, policy::InvalidPolicy},
    route::Route,
    shared::Shared,
};
use hoody_protocol::id::ContainerId;
use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

/// Containers that one server may have.
const MOST: usize = 4096;

/// Why a container is not set; what it had before goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    #[error("the container has no listeners yet")]
    NoListeners,
    #[error("more than {MOST} containers")]
    TooMany,
}

/// Every container.
#[derive(Debug)]
pub(crate) struct Containers {
    shared: Arc<Shared>,
    all: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
}

impl Containers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, all: Mutex::default() }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, Arc<Container>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `egress` hold for its container, with new listeners where descriptors are given.
    pub(crate) fn set(&self, egress: Egress, descriptors: Vec<OwnedFd>) -> Result<(), SetError> {
        egress.policy.check()?;
        let sockets = if descriptors.is_empty() { None } else { Some(Sockets::take(descriptors)?) };
        let mut all = self.all();
        let id = egress.container;
        match (all.get(&id), sockets) {
            (Some(container), sockets) => {
                container.change(egress);
                if let Some(sockets) = sockets {
                    container.listen(sockets);
                }
            }
            (None, None) => return Err(SetError::NoListeners),
            (None, Some(_)) if all.len() >= MOST => return Err(SetError::TooMany),
            (None, Some(sockets)) => {
                all.insert(id, Container::start(self.shared.clone(), egress, sockets));
            }
        }
        Ok(())
    }

    /// Ends a container's listeners and connections.
    pub(crate) async fn remove(&self, id: ContainerId) {
        let container = self.all().remove(&id);
        if let Some(container) = container {
            container.end().await;
        }
    }

    /// What holds for a container now.
    pub(crate) fn route(&self, id: ContainerId) -> Option<Arc<Route>> {
        self.all().get(&id).map(|container| container.route())
    }

    pub(crate) fn status(&self, id: ContainerId) -> Option<Status> {
        let container = self.all().get(&id).cloned();
        container.map(|container| container.status())
    }

    pub(crate) fn list(&self) -> Vec<Status> {
        let all: Vec<Arc<Container>> = self.all().values().cloned().collect();
        all.iter().map(|container| container.status()).collect()
    }
}
