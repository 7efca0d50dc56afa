//! What every part of the running control plane shares.

use crate::{config::Config, keys::Keys, nodes::Nodes, store::Store};
use std::sync::Arc;

/// The shared state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    /// The settings the process was started with.
    pub config: Arc<Config>,
    /// The database.
    pub store: Store,
    /// Signing and sealing keys, opened with the master key.
    pub keys: Arc<Keys>,
    /// The links to the nodes.
    pub nodes: Nodes,
}
