//! Bulk connections: image blobs to nodes, and file systems from one node to another.

use super::{blobs, exports, link::admission, listener::Context, refusal, transfers};
use crate::store::node;
use futures::{StreamExt, stream::FuturesUnordered};
use hoody_protocol::{
    blob::BlobRequest,
    codec::{DecodeError, Frame},
    export::ExportOffer,
    stream::{self, StreamError},
    time::now_ms,
    transfer::{TransferOffer, TransferRequest},
    transport::{Close, PeerIdentity},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::{io, time::Duration};

/// Requests that are not understood before the connection ends.
const MAX_MISUNDERSTOOD: u32 = 16;
/// Stream error code: it broke off here, ask again.
pub(super) const BROKEN_OFF: VarInt = VarInt::from_u32(2);

/// Why what was asked for broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BulkError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("read the blob")]
    Read(#[from] io::Error),
    #[error("the blob is shorter than it was")]
    Shrunk,
    #[error("the node does not take the bytes")]
    Stalled,
    #[error("the transfer was taken over by a newer request for it")]
    Replaced,
}

/// Serves a bulk connection to its end.
pub(super) async fn serve(context: Context, connection: Connection, peer: PeerIdentity) {
    let server = peer.server;
    let registry = &context.app.nodes.registry;
    // Registered first: a revocation from now on finds the connection, one before stands in the row.
    registry.add_bulk(server, &connection);
    match node::by_id(&context.app.store, server).await {
        Ok(node) => match admission(node.as_ref(), &peer) {
            Ok(()) => run(&context, &connection, &peer).await,
            Err((cause, _)) => {
                tracing::warn!(%server, code = %cause.code, "a bulk connection was refused");
                Close::Revoked.close(&connection);
            }
        },
        Err(error) => {
            tracing::error!(%server, error = &error as &dyn std::error::Error, "admit a bulk connection");
            Close::Overloaded.close(&connection);
        }
    }
    registry.remove_bulk(server, &connection);
    Close::Done.close(&connection);
}

async fn run(context: &Context, connection: &Connection, peer: &PeerIdentity) {
    let expiry = tokio::time::sleep(Duration::from_millis(peer.not_after.saturating_sub(now_ms())));
    tokio::pin!(expiry);
    let mut open = FuturesUnordered::new();
    let mut misunderstood = 0;
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok((send, recv)) => open.push(answer(context, peer, send, recv)),
                Err(_) => return,
            },
            Some(answered) = open.next() => if let Err(error) = answered {
                tracing::info!(server = %peer.server, error = &error as &dyn std::error::Error, "what a node asked for broke off");
                if matches!(error, BulkError::Stream(StreamError::Decode(_) | StreamError::Truncated)) {
                    metrics::counter!("hoody_link_misunderstood_total").increment(1);
                    misunderstood += 1;
                }
                if misunderstood >= MAX_MISUNDERSTOOD {
                    return Close::Protocol.close(connection);
                }
            },
            () = &mut expiry => return Close::Expired.close(connection),
        }
    }
}

async fn answer(
    context: &Context,
    peer: &PeerIdentity,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), BulkError> {
    match stream::read_frame(&mut recv).await.and_then(|frame| Ok(Request::of(&frame)?)) {
        Ok(Request::Blob(request)) => blobs::answer(context, peer, &mut send, request).await,
        Ok(Request::Transfer(request)) => Box::pin(transfers::answer(context, peer, (send, recv), request)).await,
        Ok(Request::Offer(offer)) => transfers::offered(context, peer, (send, recv), offer).await,
        Ok(Request::Export(offer)) => exports::offered(&context.app.nodes, peer.server, (send, recv), offer).await,
        Err(error) => {
            refusal::refuse(&mut send, &mut recv, &error).await;
            let _ = send.finish();
            Err(error.into())
        }
    }
}

/// What a stream of a bulk connection begins with.
enum Request {
    Blob(BlobRequest),
    Transfer(TransferRequest),
    Offer(TransferOffer),
    Export(ExportOffer),
}

impl Request {
    fn of(frame: &Frame) -> Result<Self, DecodeError> {
        if frame.is::<TransferRequest>() {
            frame.decode().map(Self::Transfer)
        } else if frame.is::<TransferOffer>() {
            frame.decode().map(Self::Offer)
        } else if frame.is::<ExportOffer>() {
            frame.decode().map(Self::Export)
        } else {
            frame.decode().map(Self::Blob)
        }
    }
}
