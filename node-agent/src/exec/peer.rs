//! Who is at the other end of a process: what they send, what they are sent, and how much of it may be on its way.

use hoody_protocol::{
    bounded::Bytes,
    exec::{PIECE_BYTES, ProcessOutput, TerminalSize},
    flow::{Allowance, Received},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the peer sends, in its order.
#[derive(Debug)]
pub enum Input {
    /// Bytes for the process.
    Data(Vec<u8>),
    /// No more bytes.
    End,
    /// The terminal has another size.
    Resize(TerminalSize),
}

/// The other end.
#[derive(Debug)]
pub struct Peer {
    /// What comes. Bounded by the window, which the link enforces; closed when the peer has gone.
    pub input: mpsc::UnboundedReceiver<Input>,
    /// What goes.
    pub output: mpsc::Sender<ProcessOutput>,
    /// How much output may go.
    pub allowance: Arc<Allowance>,
    /// How much input came; shared with the link, which counts what arrives.
    pub received: Arc<std::sync::Mutex<Received>>,
}

/// The peer has gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Peer {
    pub(super) async fn send(&self, message: ProcessOutput) -> Result<(), Gone> {
        self.output.send(message).await.map_err(|_| Gone)
    }

    /// Says that input was taken, once it is worth a message.
    pub(super) async fn took(&self, bytes: usize) -> Result<(), Gone> {
        took(&self.received, &self.output, bytes).await
    }
}

/// As [`Peer::took`], for a part of a peer.
pub(super) async fn took(
    received: &std::sync::Mutex<Received>,
    output: &mpsc::Sender<ProcessOutput>,
    bytes: usize,
) -> Result<(), Gone> {
    let credit = received.lock().unwrap_or_else(std::sync::PoisonError::into_inner).taken(bytes);
    match credit {
        Some(credit) => output.send(ProcessOutput::Credit(credit)).await.map_err(|_| Gone),
        None => Ok(()),
    }
}

/// A piece of output; never longer than a piece.
pub(super) fn piece(bytes: &[u8]) -> Bytes<PIECE_BYTES> {
    bytes[..bytes.len().min(PIECE_BYTES)].to_vec().try_into().unwrap_or_default()
}
