//! Two streams made one: bytes, ends, resets and stops of either are passed on to the other.

use crate::nodes::{bulk::BROKEN_OFF, transfers::Ends};
use bytes::{Buf, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use std::pin::pin;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Passes on both directions to their ends. Of each, up to `ahead` bytes, and a chunk, are read before the other side takes
/// them, so that its standing still does not fill the windows of the connection they come over.
pub(super) async fn pass((one_send, one_recv): Ends, (other_send, other_recv): Ends, ahead: usize) {
    tokio::join!(direction(one_recv, other_send, ahead), direction(other_recv, one_send, ahead));
}

async fn direction(mut from: RecvStream, mut to: SendStream, ahead: usize) {
    // Copied together: a chunk of one byte would keep all of the packet that it came in.
    let mut waiting = BytesMut::new();
    let mut ended = false;
    let mut stopped = pin!(to.stopped());
    loop {
        if ended && waiting.is_empty() {
            // Refused only where the stream is gone already.
            let _ = to.finish();
            return;
        }
        let room = waiting.len() < ahead;
        // What has come is gathered first, and then written in one piece.
        tokio::select! {
            biased;
            read = from.read_chunk(CHUNK_BYTES, true), if !ended && room => match read {
                Ok(Some(chunk)) => waiting.extend_from_slice(&chunk.bytes),
                Ok(None) => ended = true,
                Err(error) => {
                    let code = if let ReadError::Reset(code) = error { code } else { BROKEN_OFF };
                    let _ = to.reset(code);
                    return;
                }
            },
            written = to.write(&waiting), if !waiting.is_empty() => match written {
                Ok(written) => waiting.advance(written),
                Err(error) => {
                    let code = if let WriteError::Stopped(code) = error { code } else { BROKEN_OFF };
                    let _ = from.stop(code);
                    return;
                }
            },
            gone = &mut stopped => {
                let code = gone.ok().flatten().unwrap_or(BROKEN_OFF);
                let _ = from.stop(code);
                return;
            }
        }
    }
}
