//! The bulk connection: one for images and transfers, dialled when it is first needed and kept while it lives, so that
//! nothing large slows commands.

use super::{DialError, dial, identity::IdentityStore};
use hoody_protocol::transport;
use std::sync::Arc;
use tokio::sync::Mutex;

/// There is no bulk connection to the control plane.
#[derive(Debug, thiserror::Error)]
#[error("the control plane cannot be reached for bulk")]
pub struct Unreachable;

/// The connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bulk {
    identity: IdentityStore,
    connection: Arc<Mutex<Option<quinn::Connection>>>,
}

impl Bulk {
    /// Dials with the identity that is on disk at the time.
    pub fn new(identity: IdentityStore) -> Self {
        Self { identity, connection: Arc::default() }
    }

    /// The connection that lives, or a new one.
    pub async fn connection(&self) -> Result<quinn::Connection, Unreachable> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| connection.close_reason().is_none()) {
            return Ok(connection.clone());
        }
        fn unusable(error: &(dyn std::error::Error + 'static)) -> Unreachable {
            tracing::warn!(error, "no bulk connection");
            Unreachable
        }
        let identity = self.identity.load().map_err(|error| unusable(&error))?.ok_or(Unreachable)?;
        let config = transport::client_config(Some(&identity.identity), &identity.authorities, transport::BULK)
            .map_err(|error| unusable(&error))?;
        let (_, connection) = dial(&identity.addresses, &config).await.map_err(|error: DialError| unusable(&error))?;
        *kept = Some(connection.clone());
        Ok(connection)
    }
}
