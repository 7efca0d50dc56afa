//! Bulk connections: image blobs to nodes, from an offset, so that a broken transfer goes on where it was.
//!
//! A node gets the layers of the images that its containers are made of, and nothing else.

use super::{
    link::admission,
    listener::Context,
    refusal::{self, unavailable},
};
use crate::{
    service::image::blob_path,
    store::{node, report},
};
use futures::{StreamExt, stream::FuturesUnordered};
use hoody_protocol::{
    blob::{BlobReply, BlobRequest},
    container::Cause,
    stream::{self, StreamError},
    time::now_ms,
    transport::{Close, PeerIdentity},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::{io, time::Duration};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, SeekFrom},
};

/// Bytes read from disk at once.
const PIECE_BYTES: usize = 256 << 10;
/// Time in which a node must take one piece.
const STALL_DEADLINE: Duration = Duration::from_secs(30);
/// Requests that are not understood before the connection ends.
const MAX_MISUNDERSTOOD: u32 = 16;
/// Stream error code: reading failed here, ask again.
const BROKEN_OFF: VarInt = VarInt::from_u32(2);

/// Why a transfer broke off.
#[derive(Debug, thiserror::Error)]
enum BlobError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("read the blob")]
    Read(#[from] io::Error),
    #[error("the blob is shorter than it was")]
    Shrunk,
    #[error("the node does not take the bytes")]
    Stalled,
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
                tracing::info!(server = %peer.server, error = &error as &dyn std::error::Error, "a transfer broke off");
                if matches!(error, BlobError::Stream(StreamError::Decode(_) | StreamError::Truncated)) {
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
) -> Result<(), BlobError> {
    let request = match stream::read::<BlobRequest>(&mut recv).await {
        Ok(request) => request,
        Err(error) => {
            refusal::refuse(&mut send, &mut recv, &error).await;
            let _ = send.finish();
            return Err(error.into());
        }
    };
    match open(context, peer, request).await {
        Ok((file, size)) => {
            stream::write(&mut send, &BlobReply::Found { size }).await?;
            let sent = transfer(file, size - request.offset, &mut send).await;
            match &sent {
                // Refused only where the stream is gone already.
                Ok(()) => drop(send.finish()),
                Err(_) => drop(send.reset(BROKEN_OFF)),
            }
            sent
        }
        Err(cause) => {
            tracing::warn!(server = %peer.server, blob = %request.digest, code = %cause.code, "a blob was refused");
            stream::write(&mut send, &BlobReply::Refused(cause)).await?;
            let _ = send.finish();
            Ok(())
        }
    }
}

/// The blob's file at the asked offset, and the whole blob's size.
async fn open(context: &Context, peer: &PeerIdentity, request: BlobRequest) -> Result<(File, u64), Cause> {
    match report::may_fetch(&context.app.store, peer.server, request.digest).await {
        Ok(true) => {}
        Ok(false) => return Err(Cause::new("blob_not_referenced", "no container of this server needs this blob")),
        Err(error) => {
            tracing::error!(server = %peer.server, error = &error as &dyn std::error::Error, "grant a blob");
            return Err(unavailable());
        }
    }
    let path = blob_path(&context.app.config.data_dir, request.digest);
    let opened = async {
        let mut file = File::open(&path).await?;
        let size = file.metadata().await?.len();
        file.seek(SeekFrom::Start(request.offset.min(size))).await?;
        Ok::<_, io::Error>((file, size))
    };
    let (file, size) = opened.await.map_err(|error| {
        tracing::error!(path = %path.display(), error = &error as &dyn std::error::Error, "open a blob");
        Cause::new("blob_missing", "the control plane does not have this blob: import the image again")
    })?;
    if request.offset > size {
        return Err(Cause::new("blob_offset", format!("the blob has {size} bytes")));
    }
    Ok((file, size))
}

async fn transfer(mut file: File, mut remaining: u64, send: &mut SendStream) -> Result<(), BlobError> {
    let mut piece = vec![0; PIECE_BYTES];
    while remaining > 0 {
        let wanted = remaining.min(PIECE_BYTES as u64) as usize;
        let read = file.read(&mut piece[..wanted]).await?;
        if read == 0 {
            return Err(BlobError::Shrunk);
        }
        tokio::time::timeout(STALL_DEADLINE, send.write_all(&piece[..read]))
            .await
            .map_err(|_| BlobError::Stalled)?
            .map_err(StreamError::from)?;
        remaining -= read as u64;
    }
    Ok(())
}
