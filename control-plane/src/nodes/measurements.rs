//! The last measurements of nodes and containers, in memory only.

use hoody_protocol::{
    id::{ContainerId, ServerId},
    stats::{ContainerStats, NodeStats, StatsBatch},
    time::{UnixMs, now_ms},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// A measurement and when it arrived here.
#[derive(Debug, Clone)]
pub struct Measured<T> {
    /// The measurement.
    pub value: T,
    /// When the node took it, by the node's clock.
    pub taken_at: UnixMs,
    /// When it arrived, by our clock.
    pub received_at: UnixMs,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: HashMap<ServerId, Measured<NodeStats>>,
    containers: HashMap<ContainerId, (ServerId, Measured<ContainerStats>)>,
}

/// The last measurements. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Measurements(Arc<RwLock<Inner>>);

impl Measurements {
    /// Keeps a batch that `server` sent. Only containers that `belongs` accepts are kept: a node cannot
    /// speak for another's.
    pub fn record(&self, server: ServerId, batch: StatsBatch, belongs: impl Fn(ContainerId) -> bool) {
        let received_at = now_ms();
        let taken_at = batch.at;
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        inner.nodes.insert(server, Measured { value: batch.node, taken_at, received_at });
        for value in batch.containers.into_inner() {
            if belongs(value.container) {
                inner.containers.insert(value.container, (server, Measured { value, taken_at, received_at }));
            }
        }
    }

    /// The last measurement of a node.
    pub fn node(&self, server: ServerId) -> Option<Measured<NodeStats>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).nodes.get(&server).cloned()
    }

    /// The last measurement of a container.
    pub fn container(&self, container: ContainerId) -> Option<Measured<ContainerStats>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).containers.get(&container).map(|(_, m)| m.clone())
    }

    /// Forgets a container.
    pub fn forget(&self, container: ContainerId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).containers.remove(&container);
    }
}
