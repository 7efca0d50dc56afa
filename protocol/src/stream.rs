//! Frames on QUIC streams, each read and write with a deadline.

use crate::{
    codec::{self, DecodeError, Frame, HEADER_BYTES, Header},
    tag::Message,
};
use quinn::{ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use std::time::Duration;

/// The time a peer has for one frame, once it has begun.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes read at once of what is passed over.
const PIECE_BYTES: usize = 4096;

/// Stream error code: the receiver does not understand what was sent.
pub const MALFORMED: VarInt = VarInt::from_u32(1);
/// Stream error code: nobody waits for the answer any more.
pub const CANCELLED: VarInt = VarInt::from_u32(3);

/// Priority of streams of processes and logs: what everything else sends goes first.
pub const EXEC_PRIORITY: i32 = -1;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer ended the stream between two frames: no more will come.
    #[error("the peer ended the stream")]
    Finished,
    /// The peer ended the stream inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The bytes are not a valid frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The peer took longer than [`FRAME_DEADLINE`].
    #[error("the peer took longer than {} s for a frame", FRAME_DEADLINE.as_secs())]
    Deadline,
    /// The connection or stream broke.
    #[error("read from the stream")]
    Read(#[from] quinn::ReadError),
    /// The connection or stream broke.
    #[error("write to the stream")]
    Write(#[from] WriteError),
}

impl StreamError {
    /// True where the frame was read to its end though it was not understood: the next frame can be read.
    pub fn keeps_sync(&self) -> bool {
        use DecodeError::{Malformed, TooLarge, UnexpectedTag, UnknownTag};
        match self {
            Self::Decode(UnknownTag(_) | UnexpectedTag { .. } | Malformed { .. }) => true,
            Self::Decode(TooLarge { .. }) => false,
            Self::Finished | Self::Truncated | Self::Deadline | Self::Read(_) | Self::Write(_) => false,
        }
    }
}

/// Reads the next frame. The body of a frame with an unknown tag is passed over, so that the stream can
/// go on after the refusal. Waits for its first byte without limit (the connection's idle timeout is the
/// limit), for the rest up to [`FRAME_DEADLINE`].
pub async fn read_frame(stream: &mut RecvStream) -> Result<Frame, StreamError> {
    let mut header = [0; HEADER_BYTES];
    let Some(first) = stream.read(&mut header[..1]).await? else { return Err(StreamError::Finished) };
    let rest = async {
        stream.read_exact(&mut header[first..]).await.map_err(inside_frame)?;
        let header = match Header::parse(header) {
            Err(error @ DecodeError::UnknownTag(_)) => {
                pass_over(stream, announced_length(header)).await?;
                return Err(error.into());
            }
            parsed => parsed?,
        };
        let mut body = vec![0; header.length];
        stream.read_exact(&mut body).await.map_err(inside_frame)?;
        Ok(Frame { tag: header.tag, body })
    };
    tokio::time::timeout(FRAME_DEADLINE, rest).await.map_err(|_| StreamError::Deadline)?
}

fn announced_length(header: [u8; HEADER_BYTES]) -> usize {
    let [l0, l1, l2, l3, ..] = header;
    u32::from_be_bytes([l0, l1, l2, l3]) as usize
}

/// Reads and forgets `length` bytes; more than any message has is not passed over but refused.
async fn pass_over(stream: &mut RecvStream, mut length: usize) -> Result<(), StreamError> {
    if length > codec::MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge { tag: 0, length, max: codec::MAX_BODY_BYTES }.into());
    }
    // On the heap: an array here would be part of every future that reads a frame, also of those that wait for one
    // for as long as a link lives.
    let mut piece = vec![0; length.min(PIECE_BYTES)];
    while length > 0 {
        let end = length.min(piece.len());
        stream.read_exact(&mut piece[..end]).await.map_err(inside_frame)?;
        length -= end;
    }
    Ok(())
}

fn inside_frame(error: ReadExactError) -> StreamError {
    match error {
        ReadExactError::FinishedEarly(_) => StreamError::Truncated,
        ReadExactError::ReadError(error) => error.into(),
    }
}

/// Reads the next frame as a message of type `M`.
pub async fn read<M: Message>(stream: &mut RecvStream) -> Result<M, StreamError> {
    Ok(read_frame(stream).await?.decode()?)
}

/// Writes a message.
pub async fn write<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), StreamError> {
    let written = tokio::time::timeout(FRAME_DEADLINE, write_patiently(stream, message)).await;
    written.map_err(|_| StreamError::Deadline)?
}

/// Writes a message, however long the peer takes: for what somebody else's reader holds up.
pub async fn write_patiently<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), StreamError> {
    Ok(stream.write_chunk(codec::encode(message).into()).await?)
}

/// Opens a bidirectional stream, sends `request` and reads the answer, all within `deadline`.
pub async fn ask<Q: Message, A: Message>(
    connection: &quinn::Connection,
    request: &Q,
    deadline: Duration,
) -> Result<A, AskError> {
    let asked = async { exchange(connection.open_bi().await?, request).await };
    tokio::time::timeout(deadline, asked).await.map_err(|_| AskError::Deadline)?
}

/// Sends `request` as the last message of an open stream and reads the answer.
pub async fn exchange<Q: Message, A: Message>(
    (mut send, mut recv): (SendStream, RecvStream),
    request: &Q,
) -> Result<A, AskError> {
    write(&mut send, request).await?;
    // The peer may have answered already; that it cannot be told the end does not matter then.
    let _ = send.finish();
    let frame = read_frame(&mut recv).await?;
    if frame.is::<crate::link::Refusal>() {
        return Err(AskError::Refused(frame.decode::<crate::link::Refusal>().map_err(StreamError::from)?.cause));
    }
    Ok(frame.decode().map_err(StreamError::from)?)
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No answer in time.
    #[error("the peer did not answer in time")]
    Deadline,
    /// The connection ended.
    #[error("the connection ended")]
    Connection(#[from] quinn::ConnectionError),
    /// The exchange broke.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer does not know or expect the question.
    #[error("the peer refused: {}", .0.message)]
    Refused(crate::container::Cause),
}
