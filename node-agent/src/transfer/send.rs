//! The source's side: keeps what is to be sent, and offers its stream.

use super::{
    Broken, BulkTransfers, OPEN_DEADLINE,
    outgoing::{Next, Stream},
};
use crate::storage::StorageError;
use hoody_protocol::{
    container::Cause,
    id::TransferId,
    link::CommandReply,
    stream,
    transfer::{PRIORITY, SendOrder, TransferData, TransferOffer, TransferProgress, TransferReply},
};
use std::{io, sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// Silence of the target after which the stream counts as broken: longer than its disk may need for a piece.
const SILENCE: Duration = Duration::from_secs(180);

impl BulkTransfers {
    /// Carries out an order; the stream is then offered on the bulk connection.
    pub async fn send(&self, order: SendOrder) -> CommandReply {
        let this = self.clone();
        self.bulk.run(async move { this.begin(order).await }).await
    }

    async fn begin(self, order: SendOrder) -> CommandReply {
        let (transfer, container) = (order.transfer, order.container);
        let (stream, offset) = match self.stream(order).await {
            Ok(stream) => stream,
            Err(cause) => {
                tracing::warn!(%transfer, %container, code = %cause.code, "a transfer is not sent");
                return CommandReply::Refused(cause);
            }
        };
        hoody_fault::point!("transfer.ordered");
        let (transfers, resumed) = (self.clone(), offset > 0);
        let sending = tokio::spawn(async move {
            // Whoever sent it before has been stopped, and lets go of it at once.
            let mut stream = stream.lock().await;
            match transfers.offer(transfer, &mut stream, offset).await {
                Ok(()) => transfers.outgoing.end(transfer),
                Err(error) => {
                    tracing::info!(%transfer, error = &error as &dyn std::error::Error, "a transfer broke off");
                    transfers.outgoing.let_go(transfer);
                }
            }
        });
        self.outgoing.attend(transfer, sending.abort_handle());
        tracing::info!(%transfer, %container, offset, resumed, "a transfer is sent");
        CommandReply::Accepted
    }

    /// The stream of the transfer and where it goes on: at what the target has, or at its beginning.
    async fn stream(&self, order: SendOrder) -> Result<(Arc<Mutex<Stream>>, u64), Cause> {
        let SendOrder { transfer, container, base, offset, .. } = order;
        if let Some(stream) = self.outgoing.resume(transfer)
            && stream.lock().await.reaches(offset)
        {
            return Ok((stream, offset));
        }
        let failed = |error: StorageError| {
            tracing::error!(%transfer, %container, error = &error as &dyn std::error::Error, "begin a transfer");
            cause(&error)
        };
        if let Some(base) = base
            && !self.lineages.has(container, base).await.map_err(failed)?
        {
            return Err(Cause::new(
                "transfer_base_missing",
                "what the transfer is based on is no longer on its server",
            ));
        }
        let mut keep = order.keep.into_inner();
        keep.extend(base.into_iter().chain([transfer]));
        self.lineages.retain(container, keep).await.map_err(failed)?;
        let source = self.source(container, order.snapshot);
        self.lineages.keep(container, transfer, &source).await.map_err(failed)?;
        let total = self.lineages.measure(container, transfer, base).await.map_err(failed)?;
        let own = self.lineages.own_bytes(container, transfer).await.map_err(failed)?;
        let stream = self.lineages.send(container, transfer, base).await.map_err(failed)?;
        if !self.outgoing.begin(transfer, container, Stream::new(stream, Some(total), Some(own))) {
            return Err(Cause::new(BUSY, "the server sends as many file systems as it can at once"));
        }
        let stream = self.outgoing.resume(transfer);
        stream.map(|stream| (stream, 0)).ok_or_else(|| Cause::new("transfer_ended", "the transfer was ended"))
    }

    /// Offers the stream and sends it; `Ok` where nobody wants it any more: it arrived, or cannot.
    async fn offer(&self, transfer: TransferId, stream: &mut Stream, offset: u64) -> Result<(), Broken> {
        let opening = async {
            let (mut send, mut recv) = self.bulk.connection().await?.open_bi().await?;
            let _ = send.set_priority(PRIORITY);
            stream::write(&mut send, &TransferOffer { transfer, offset, total: stream.total }).await?;
            let reply = stream::read::<TransferReply>(&mut recv).await?;
            Ok::<_, Broken>((send, reply, recv))
        };
        let (mut send, reply, recv) =
            tokio::time::timeout(OPEN_DEADLINE, opening).await.map_err(|_| Broken::Silent)??;
        match reply {
            TransferReply::Begin { .. } => {}
            TransferReply::Refused { cause, .. } => return Err(Broken::Later(cause)),
        }
        // A message that has arrived in part is kept while something else is awaited.
        let progress = futures::stream::unfold(recv, |mut recv| async {
            let progress = tokio::time::timeout(SILENCE, stream::read::<TransferProgress>(&mut recv)).await;
            Some((progress, recv))
        });
        let mut progress = std::pin::pin!(progress);
        let mut next = offset;
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                Some(said) = futures::StreamExt::next(&mut progress) => match said.map_err(|_| Broken::Silent)?? {
                    TransferProgress::Taken(offset) if stream.taken(offset) => {}
                    // What was never sent cannot have been taken.
                    TransferProgress::Taken(_) => return Ok(()),
                    TransferProgress::Kept => return Ok(()),
                    TransferProgress::Failed(cause) => {
                        tracing::info!(%transfer, code = %cause.code, "the target cannot take a transfer");
                        return Ok(());
                    }
                },
                Some(data) = stream.next(next), if !ended => {
                    let data = match data {
                        Next::Piece(piece) => {
                            next += piece.len() as u64;
                            TransferData::Piece(piece)
                        }
                        Next::End(Ok((bytes, digest))) => {
                            TransferData::End { bytes, digest, own_bytes: stream.own_bytes }
                        }
                        Next::End(Err(cause)) => TransferData::Failed(cause),
                    };
                    ended = !matches!(data, TransferData::Piece(_));
                    let written = stream::write_patiently(&mut send, &data);
                    tokio::time::timeout(SILENCE, written).await.map_err(|_| Broken::Silent)??;
                    if ended {
                        // Refused only where the stream is gone already.
                        let _ = send.finish();
                    }
                }
            }
        }
    }
}

/// The code of a refusal that is lifted by itself.
pub(super) const BUSY: &str = "transfer_busy";

pub(super) fn cause(error: &StorageError) -> Cause {
    match error {
        StorageError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Cause::new("transfer_source_missing", "the container's file system is not on its server")
        }
        _ => Cause::new("transfer_failed", "the container's file system could not be read on its server"),
    }
}
