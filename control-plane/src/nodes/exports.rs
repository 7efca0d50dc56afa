//! Archives of containers on their way from a node to a client. The node is ordered over its link to make one, and
//! offers it on its bulk connection; whoever waits for it reads it from there at the client's pace. Nothing is kept here
//! beside what the window of the stream holds.

use super::{Nodes, bulk::BulkError, expected::Expectation, remote::OpenError, transfers::Ends};
use hoody_protocol::{
    container::Cause,
    export::{ExportOffer, ExportOrder},
    id::{ExportId, ServerId},
    link::CommandReply,
    replica::RelayPurpose,
    stream::{self, AskError, StreamError},
    stream_digest::StreamHasher,
    transfer::{TransferData, TransferReply},
};
use quinn::{RecvStream, SendStream};
use std::time::Duration;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

/// Time for the node to keep what it will pack.
const ORDER_DEADLINE: Duration = Duration::from_secs(60);
/// Time for the node to offer the archive then.
const OFFER_DEADLINE: Duration = Duration::from_secs(30);
/// Silence of the node after which the archive counts as broken off.
const SILENCE: Duration = Duration::from_secs(120);

/// Why no archive is sent.
#[derive(Debug, thiserror::Error)]
pub enum NoExport {
    /// The server is not linked to this process, nor to a replica that is reached.
    #[error("the server is not reached")]
    NotLinked,
    /// The node's agent does not know exports.
    #[error("the server's agent is too old")]
    Unsupported,
    /// The node refused.
    #[error("the node refused: {}", .0.message)]
    Refused(Cause),
    /// Too many archives come through the replica that has the server's link.
    #[error("too many archives come through that replica")]
    TooMany,
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
    _place: Option<OwnedSemaphorePermit>,
    bytes: u64,
    hasher: StreamHasher,
}

/// Orders the archive from the server's node and waits for its beginning.
pub(super) async fn order(nodes: &Nodes, server: ServerId, order: &ExportOrder) -> Result<Export, NoExport> {
    // Whoever has the link waits for the offer before the order goes out.
    let source = match nodes.is_linked(server) {
        true => Source::Here(nodes.exports.expect(order.export, server)),
        false => {
            let relayed = nodes.replicas.relay(server, RelayPurpose::Export(order.export)).await;
            let (ends, place) = relayed.map_err(|error| match error {
                OpenError::NotLinked | OpenError::Broken(_) => NoExport::NotLinked,
                OpenError::TooMany => NoExport::TooMany,
                OpenError::Deadline => NoExport::Silent,
            })?;
            Source::Elsewhere(ends, place)
        }
    };
    match nodes.ask(server, order, ORDER_DEADLINE).await {
        Ok(CommandReply::Accepted) => {}
        Ok(CommandReply::Refused(cause)) => return Err(NoExport::Refused(cause)),
        Err(Some(AskError::Refused(_))) => return Err(NoExport::Unsupported),
        Ok(_) | Err(Some(AskError::Deadline)) => return Err(NoExport::Silent),
        Err(Some(AskError::Connection(_) | AskError::Stream(_)) | None) => return Err(NoExport::NotLinked),
    }
    let begun = async {
        let ((mut send, recv), place) = source.offered(order.export).await.ok_or(NoExport::Silent)?;
        stream::write(&mut send, &TransferReply::Begin { offset: 0 }).await.map_err(|_| NoExport::Silent)?;
        Ok(Export { _send: send, recv, _place: place, bytes: 0, hasher: StreamHasher::new() })
    };
    timeout(OFFER_DEADLINE, begun).await.map_err(|_| NoExport::Silent)?
}

/// Where the node's offer comes.
enum Source {
    Here(Expectation<ExportId, Ends>),
    /// On a stream from the replica that has the server's link.
    Elsewhere(Ends, Option<OwnedSemaphorePermit>),
}

impl Source {
    async fn offered(self, export: ExportId) -> Option<(Ends, Option<OwnedSemaphorePermit>)> {
        match self {
            Self::Here(expected) => expected.arrives().await.map(|ends| (ends, None)),
            Self::Elsewhere((send, mut recv), place) => {
                let offer: ExportOffer = stream::read(&mut recv).await.ok()?;
                (offer.export == export).then_some(((send, recv), place))
            }
        }
    }
}

/// Takes the node's end of an export that somebody waits for.
pub(super) async fn offered(nodes: &Nodes, server: ServerId, ends: Ends, offer: ExportOffer) -> Result<(), BulkError> {
    let Err((mut send, _recv)) = nodes.exports.deliver(offer.export, server, ends) else { return Ok(()) };
    let cause = Cause::new("export_unknown", "nobody waits for this export from this server");
    stream::write(&mut send, &TransferReply::Refused { cause, retry: false }).await?;
    let _ = send.finish();
    Ok(())
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
                let found = self.hasher.digest();
                if (bytes, digest) == (self.bytes, found) { Ok(None) } else { Err(ExportError::Damaged) }
            }
            TransferData::Failed(cause) => Err(ExportError::Failed(cause)),
        }
    }
}
