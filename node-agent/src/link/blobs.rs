//! Blobs over a connection of their own, dialled when the first one is needed and kept while it lives.

use super::{DialError, dial, identity::IdentityStore};
use crate::images::{BlobError, BlobSource};
use async_trait::async_trait;
use hoody_protocol::{
    blob::{BlobReply, BlobRequest},
    image::Digest,
    stream::{self, StreamError},
    transport,
};
use std::{io, time::Duration};
use tokio::{io::AsyncRead, sync::Mutex};

/// The time between asking for a blob and the answer.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// The control plane as a source of blobs.
#[derive(Debug)]
pub struct ControlPlaneBlobs {
    identity: IdentityStore,
    connection: Mutex<Option<quinn::Connection>>,
}

impl ControlPlaneBlobs {
    /// Dials with the identity that is on disk at the time.
    pub fn new(identity: IdentityStore) -> Self {
        Self { identity, connection: Mutex::default() }
    }

    async fn connection(&self) -> Result<quinn::Connection, BlobError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| connection.close_reason().is_none()) {
            return Ok(connection.clone());
        }
        fn unusable(error: &(dyn std::error::Error + 'static)) -> BlobError {
            tracing::warn!(error, "no connection for blobs");
            BlobError::Unreachable
        }
        let identity = self.identity.load().map_err(|error| unusable(&error))?.ok_or(BlobError::Unreachable)?;
        let config = transport::client_config(Some(&identity.identity), &identity.authorities, transport::BULK)
            .map_err(|error| unusable(&error))?;
        let (_, connection) = dial(&identity.addresses, &config).await.map_err(|error: DialError| unusable(&error))?;
        *kept = Some(connection.clone());
        Ok(connection)
    }
}

#[async_trait]
impl BlobSource for ControlPlaneBlobs {
    async fn open(&self, digest: Digest, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, BlobError> {
        let connection = self.connection().await?;
        let broken = |error: StreamError| BlobError::Transfer { digest, source: io::Error::other(error) };
        let exchange = async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(|_| BlobError::Unreachable)?;
            stream::write(&mut send, &BlobRequest { digest, offset }).await.map_err(broken)?;
            let reply: BlobReply = stream::read(&mut recv).await.map_err(broken)?;
            match reply {
                BlobReply::Found { .. } => Ok(Box::new(recv) as Box<dyn AsyncRead + Send + Unpin>),
                BlobReply::Refused(cause) => Err(BlobError::Refused(cause)),
            }
        };
        match tokio::time::timeout(OPEN_DEADLINE, exchange).await {
            Ok(opened) => opened,
            Err(late) => Err(BlobError::Transfer { digest, source: late.into() }),
        }
    }
}
