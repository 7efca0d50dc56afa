//! Blobs over the bulk connection.

use super::bulk::Bulk;
use crate::images::{BlobError, BlobSource};
use async_trait::async_trait;
use hoody_protocol::{
    blob::{BlobReply, BlobRequest},
    image::Digest,
    stream::{self, StreamError},
};
use std::{io, time::Duration};
use tokio::io::AsyncRead;

/// The time between asking for a blob and the answer.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// The control plane as a source of blobs.
#[derive(Debug)]
pub struct ControlPlaneBlobs {
    bulk: Bulk,
}

impl ControlPlaneBlobs {
    /// Fetches over `bulk`.
    pub fn new(bulk: Bulk) -> Self {
        Self { bulk }
    }
}

#[async_trait]
impl BlobSource for ControlPlaneBlobs {
    async fn open(&self, digest: Digest, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, BlobError> {
        let connection = self.bulk.connection().await.map_err(|_| BlobError::Unreachable)?;
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
