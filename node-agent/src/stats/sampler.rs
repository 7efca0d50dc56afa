//! Both samplers together, as the link uses them: the node and its containers, in batches.

use super::{ContainerSampler, NodeSampler, Sources, batches};
use hoody_protocol::{
    id::ContainerId,
    stats::{NodeStats, StatsBatch},
    time::now_ms,
};
use tokio::sync::Mutex;

/// Measures the node and its containers.
#[derive(Debug)]
pub struct Sampler {
    sources: Sources,
    before: Mutex<(NodeSampler, ContainerSampler)>,
}

impl Sampler {
    /// Measures from these sources.
    pub fn new(sources: Sources) -> Self {
        let before = (NodeSampler::default(), ContainerSampler::new(sources.clone()));
        Self { sources, before: Mutex::new(before) }
    }

    /// Measures now. Nothing where the node itself cannot be read: a batch always holds the node.
    pub async fn sample(&self, containers: &[ContainerId]) -> Vec<StatsBatch> {
        let mut before = self.before.lock().await;
        let (node, container) = &mut *before;
        let pool = match self.sources.storage.pool_usage().await {
            Ok(usage) => Some(usage),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the storage pool was not measured");
                None
            }
        };
        let errors = self.sources.storage.device_errors().await.unwrap_or_else(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "the errors of the pool's devices were not read");
            0
        });
        match node.sample(pool).map(|stats| NodeStats { pool_device_errors: errors, ..stats }) {
            Ok(stats) => batches(now_ms(), stats, container.sample(containers).await),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the node was not measured");
                Vec::new()
            }
        }
    }
}
