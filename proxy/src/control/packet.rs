//! Packets with descriptors, over a SEQPACKET socket.

use super::message::{self, MAX_DESCRIPTORS, MAX_MESSAGE_BYTES, Malformed};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
};
use tokio_seqpacket::{
    UnixSeqpacket,
    ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage},
};
use zeroize::Zeroizing;

/// Bytes for the control message with the descriptors.
const ANCILLARY_BYTES: usize = 64;

/// Why a packet could not be received.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The socket failed.
    #[error("the control socket failed")]
    Io(#[from] io::Error),
    /// The packet or what came with it is larger than allowed.
    #[error("a packet over the limit")]
    TooLarge,
    /// It is not a message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Sends one message with descriptors.
pub(crate) async fn send<M: Serialize, F: AsFd>(
    socket: &UnixSeqpacket,
    message: &M,
    descriptors: &[F],
) -> io::Result<()> {
    let bytes = message::encode(message);
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message over its limit"));
    }
    let mut buffer = [0; ANCILLARY_BYTES];
    let mut ancillary = AncillaryMessageWriter::new(&mut buffer);
    if !descriptors.is_empty() {
        ancillary.add_fds(descriptors)?;
    }
    socket.send_vectored_with_ancillary(&[IoSlice::new(&bytes)], &mut ancillary).await.map(|_| ())
}

/// Receives one message with its descriptors; `None` at the end.
pub(crate) async fn receive<M: DeserializeOwned>(
    socket: &UnixSeqpacket,
) -> Result<Option<(M, Vec<OwnedFd>)>, PacketError> {
    let mut bytes = Zeroizing::new(vec![0; MAX_MESSAGE_BYTES]);
    let mut buffer = [0; ANCILLARY_BYTES];
    let (info, ancillary) =
        socket.recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut bytes)], &mut buffer).await?;
    let truncated = info.truncated() || info.ancillary_truncated();
    let mut descriptors = Vec::new();
    for part in ancillary.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(received) = part {
            descriptors.extend(received);
        }
    }
    if truncated || descriptors.len() > MAX_DESCRIPTORS {
        return Err(PacketError::TooLarge);
    }
    match info.bytes_read() {
        0 => Ok(None),
        read => Ok(Some((message::decode(&bytes[..read])?, descriptors))),
    }
}
