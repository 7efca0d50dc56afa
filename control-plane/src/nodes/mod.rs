//! The nodes' side: listener, enrolment, certificate authority, links, dispatch of specifications and
//! operations, and what came back.
//!
//! Services never talk to a link. They write to the store and [`Nodes::wake`] the server; the server's
//! dispatch task then re-reads from the store what the node does not have yet. What comes back is
//! written to the store and announced through [`Nodes::changes`].

mod changes;
mod measurements;

pub use changes::Changes;
pub use measurements::Measurements;

use hoody_protocol::id::ServerId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Handle to everything about nodes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    /// Announces stored changes of containers.
    pub changes: Changes,
    /// The last measurements, in memory.
    pub measurements: Measurements,
    links: Arc<Mutex<HashMap<ServerId, Arc<Notify>>>>,
}

impl Nodes {
    /// Tells the server's dispatch task, where this process has the link, that the store holds
    /// something new for it.
    pub fn wake(&self, server: ServerId) {
        if let Some(wake) = self.links.lock().unwrap_or_else(PoisonError::into_inner).get(&server) {
            wake.notify_one();
        }
    }

    /// True while this process has the server's link.
    pub fn is_linked(&self, server: ServerId) -> bool {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&server)
    }
}
