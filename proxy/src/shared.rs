//! What all containers share.

use crate::{config::Config, relay::PipePool, udp::ReplySockets, upstream::TlsSettings};
use hoody_protocol::id::ContainerId;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Semaphore;

/// Settings, bounds and pools of the whole program.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tls: TlsSettings,
    pub(crate) pipes: PipePool,
    pub(crate) replies: ReplySockets,
    /// A permit for every connection of any container.
    pub(crate) connections: Arc<Semaphore>,
    listeners: Mutex<Vec<Weak<Changed>>>,
}

/// Ids of containers whose health changed, for one agent's connection.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    ids: Mutex<std::collections::BTreeSet<ContainerId>>,
    something: tokio::sync::Notify,
}

impl Changed {
    /// The next one; its status is read when it is sent, so that it is never an old one.
    pub(crate) async fn next(&self) -> ContainerId {
        loop {
            if let Some(id) = self.ids.lock().unwrap_or_else(PoisonError::into_inner).pop_first() {
                return id;
            }
            self.something.notified().await;
        }
    }
}

impl Shared {
    pub(crate) fn new(config: Config) -> Result<Self, rustls::Error> {
        Ok(Self {
            tls: TlsSettings::load()?,
            pipes: PipePool::default(),
            replies: ReplySockets::default(),
            connections: Arc::new(Semaphore::new(config.connections)),
            listeners: Mutex::default(),
            config,
        })
    }

    /// From now on changes are told to the returned one, as long as it is kept.
    pub(crate) fn listen(&self) -> Arc<Changed> {
        let changed = Arc::new(Changed::default());
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&changed));
        changed
    }

    /// A container's health changed.
    pub(crate) fn announce(&self, id: ContainerId) {
        for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            listener.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            listener.something.notify_one();
        }
    }
}
