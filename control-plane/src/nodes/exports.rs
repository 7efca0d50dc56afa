//! Archives of containers on their way from a node to a client. The node is ordered over its link to make one, and
//! offers it on its bulk connection; whoever waits for it reads it from there at the client's pace. Nothing is kept here
//! beside what the window of the stream holds.

use super::{bulk::BulkError, registry::Registry, transfers::Ends};
use hoody_protocol::{
    container::Cause,
    export::{ExportOffer, ExportOrder},
    id::{ExportId, ServerId},
    image::Digest,
    link::CommandReply,
    stream::{self, AskError, StreamError},
    transfer::{TransferData, TransferReply},
};
use quinn::{RecvStream, SendStream};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// Time for the node to keep what it will pack.
const ORDER_DEADLINE: Duration = Duration::from_secs(60);
/// Time for the node to offer the archive then.
const OFFER_DEADLINE: Duration = Duration::from_secs(30);
/// Silence of the node after which the archive counts as broken off.
const SILENCE: Duration = Duration::from_secs(120);

/// Of whom an offer is taken, and who waits for it.
type Expected = (ServerId, oneshot::Sender<Ends>);

/// Who waits for the offer of which export. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Exports(Arc<Mutex<HashMap<ExportId, Expected>>>);

/// Why no archive is sent.
#[derive(Debug, thiserror::Error)]
pub enum NoExport {
    /// This process has no link of the server.
    #[error("the server is not linked here")]
    NotLinked,
    /// The node's agent does not know exports.
    #[error("the server's agent is too old")]
    Unsupported,
    /// The node refused.
    #[error("the node refused: {}", .0.message)]
    Refused(Cause),
    /// The node did not answer, or did not offer the archive, in time.
    #[error("the node did not answer in time")]
    Silent,
}

/// Why an archive broke off.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The node could not make all of it.
    #[error("the node failed: {}", .0.message)]
    Failed(Cause),
    /// The connection broke.
    #[error("the connection to the node broke")]
    Broken(#[from] StreamError),
    /// The node sent nothing for too long.
    #[error("the node sent nothing for {} s", SILENCE.as_secs())]
    Silent,
    /// What came is not what was sent.
    #[error("what came is not what the node sent")]
    Damaged,
}

/// An archive that is read. Dropping it ends the export.
#[derive(Debug)]
pub struct Export {
    _send: SendStream,
    recv: RecvStream,
    bytes: u64,
    hasher: Sha256,
}

impl Exports {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExportId, (ServerId, oneshot::Sender<Ends>)>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders the archive from the server's node and waits for its beginning.
    pub(super) async fn order(
        &self,
        registry: &Registry,
        server: ServerId,
        order: &ExportOrder,
    ) -> Result<Export, NoExport> {
        let (_, connection) = registry.link_of(server).ok_or(NoExport::NotLinked)?;
        let (sender, offered) = oneshot::channel();
        self.lock().insert(order.export, (server, sender));
        let _waiting = Waiting { exports: self, export: order.export };
        match stream::ask(&connection, order, ORDER_DEADLINE).await {
            Ok(CommandReply::Accepted) => {}
            Ok(CommandReply::Refused(cause)) => return Err(NoExport::Refused(cause)),
            Err(AskError::Refused(_)) => return Err(NoExport::Unsupported),
            Ok(_) | Err(AskError::Deadline) => return Err(NoExport::Silent),
            Err(AskError::Connection(_) | AskError::Stream(_)) => return Err(NoExport::NotLinked),
        }
        let begun = async {
            let (mut send, recv) = offered.await.map_err(|_| NoExport::Silent)?;
            stream::write(&mut send, &TransferReply::Begin { offset: 0 }).await.map_err(|_| NoExport::Silent)?;
            Ok(Export { _send: send, recv, bytes: 0, hasher: Sha256::new() })
        };
        timeout(OFFER_DEADLINE, begun).await.map_err(|_| NoExport::Silent)?
    }

    /// Takes the node's end of an export that somebody waits for.
    pub(super) async fn offered(&self, server: ServerId, ends: Ends, offer: ExportOffer) -> Result<(), BulkError> {
        let waiting = {
            let mut waiting = self.lock();
            let is_its = waiting.get(&offer.export).is_some_and(|(expected, _)| *expected == server);
            if is_its { waiting.remove(&offer.export) } else { None }
        };
        let ends = match waiting {
            Some((_, sender)) => match sender.send(ends) {
                Ok(()) => return Ok(()),
                Err(ends) => ends,
            },
            None => ends,
        };
        let (mut send, _recv) = ends;
        let cause = Cause::new("export_unknown", "nobody waits for this export from this server");
        stream::write(&mut send, &TransferReply::Refused { cause, retry: false }).await?;
        let _ = send.finish();
        Ok(())
    }
}

/// A place among those who wait, given up when it is dropped.
struct Waiting<'a> {
    exports: &'a Exports,
    export: ExportId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.exports.lock().remove(&self.export);
    }
}

impl Export {
    /// The next bytes; `None` at the end, where all of them are what the node sent.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let data = timeout(SILENCE, stream::read::<TransferData>(&mut self.recv)).await;
        match data.map_err(|_| ExportError::Silent)?? {
            TransferData::Piece(piece) => {
                let piece = piece.into_inner();
                self.bytes += piece.len() as u64;
                self.hasher.update(&piece);
                Ok(Some(piece))
            }
            TransferData::End { bytes, digest, .. } => {
                let found = Digest::from_bytes(self.hasher.clone().finalize().into());
                if (bytes, digest) == (self.bytes, found) { Ok(None) } else { Err(ExportError::Damaged) }
            }
            TransferData::Failed(cause) => Err(ExportError::Failed(cause)),
        }
    }
}
