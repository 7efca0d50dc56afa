//! The bulk connection: one for images and transfers, dialled when it is first needed and kept while it lives, so that
//! nothing large slows commands; and a thread of its own that yields to others, for encrypting and decrypting is most of
//! the work.

use super::{DialError, dial, identity::IdentityStore};
use crate::background::Background;
use hoody_protocol::transport;
use std::{io, sync::Arc};
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
    background: Arc<Background>,
}

impl Bulk {
    /// Dials with the identity that is on disk at the time.
    pub fn start(identity: IdentityStore) -> io::Result<Self> {
        Ok(Self { identity, connection: Arc::default(), background: Arc::new(Background::start("bulk")?) })
    }

    /// Does work with the connection where it is at home. It is given up when this is.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.background.run(work).await
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
        let dialling = self.background.run(async move { dial(&identity.addresses, &config, transport::BULK).await });
        let (_, connection) = dialling.await.map_err(|error: DialError| unusable(&error))?;
        *kept = Some(connection.clone());
        Ok(connection)
    }
}
