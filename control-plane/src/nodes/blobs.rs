//! Image blobs to nodes, from an offset, so that a broken transfer goes on where it was.
//!
//! A node gets the layers of the images that its containers are made of, and nothing else.

use super::{
    bulk::{BROKEN_OFF, BulkError},
    listener::Context,
    refusal::unavailable,
};
use crate::{service::image::blob_path, store::report};
use hoody_protocol::{
    blob::{BlobReply, BlobRequest},
    container::Cause,
    stream::{self, StreamError},
    transport::PeerIdentity,
};
use quinn::SendStream;
use std::{io, time::Duration};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, SeekFrom},
};

/// Bytes read from disk at once.
const PIECE_BYTES: usize = 256 << 10;
/// Time in which a node must take one piece.
const STALL_DEADLINE: Duration = Duration::from_secs(30);
/// Answers a request for a blob.
pub(super) async fn answer(
    context: &Context,
    peer: &PeerIdentity,
    send: &mut SendStream,
    request: BlobRequest,
) -> Result<(), BulkError> {
    match open(context, peer, request).await {
        Ok((file, size)) => {
            stream::write(send, &BlobReply::Found { size }).await?;
            let sent = transfer(file, size - request.offset, send).await;
            match &sent {
                // Refused only where the stream is gone already.
                Ok(()) => drop(send.finish()),
                Err(_) => drop(send.reset(BROKEN_OFF)),
            }
            sent
        }
        Err(cause) => {
            tracing::warn!(server = %peer.server, blob = %request.digest, code = %cause.code, "a blob was refused");
            stream::write(send, &BlobReply::Refused(cause)).await?;
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

async fn transfer(mut file: File, mut remaining: u64, send: &mut SendStream) -> Result<(), BulkError> {
    let mut piece = vec![0; PIECE_BYTES];
    while remaining > 0 {
        let wanted = remaining.min(PIECE_BYTES as u64) as usize;
        let read = file.read(&mut piece[..wanted]).await?;
        if read == 0 {
            return Err(BulkError::Shrunk);
        }
        tokio::time::timeout(STALL_DEADLINE, send.write_all(&piece[..read]))
            .await
            .map_err(|_| BulkError::Stalled)?
            .map_err(StreamError::from)?;
        remaining -= read as u64;
    }
    Ok(())
}
