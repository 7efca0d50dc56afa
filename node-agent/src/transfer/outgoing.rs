//! Streams being sent: what the kernel made of them and the target has not taken, so that a stream that broke goes on.

use super::RESUME_TIME;
use crate::storage::SendStream;
use hoody_protocol::{
    bounded::Bytes,
    container::Cause,
    id::{ContainerId, TransferId},
    stream_digest::{StreamDigest, StreamHasher},
    transfer::{PIECE_BYTES, WINDOW},
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{io::AsyncReadExt, task::AbortHandle, time::Instant};

/// Streams that are sent at once.
const MAX_OUTGOING: usize = 4;
/// Pause between looks for streams that nobody asks for any more.
const SWEEP: Duration = Duration::from_secs(10);

/// The streams being sent, by their transfers.
#[derive(Debug, Default)]
pub(super) struct Outgoing(Mutex<HashMap<TransferId, Entry>>);

#[derive(Debug)]
struct Entry {
    container: ContainerId,
    stream: Arc<tokio::sync::Mutex<Stream>>,
    /// The task that sends it; the one of an order before ends when the next comes.
    task: Option<AbortHandle>,
    /// When it was last let go of.
    idle_since: Option<Instant>,
}

/// A stream, as far as it was read.
#[derive(Debug)]
pub(super) struct Stream {
    source: SendStream,
    /// Bytes that the target has not taken, and where they begin.
    held: VecDeque<u8>,
    begins: u64,
    hasher: StreamHasher,
    /// How it ended; the kernel's streams say it once.
    end: Option<Result<(u64, StreamDigest), Cause>>,
    /// Bytes that it will come to, about.
    pub(super) total: Option<u64>,
    /// Bytes of it that count as the container's own.
    pub(super) own_bytes: Option<u64>,
}

impl Stream {
    pub(super) fn new(source: SendStream, total: Option<u64>, own_bytes: Option<u64>) -> Self {
        Self { source, held: VecDeque::new(), begins: 0, hasher: StreamHasher::new(), end: None, total, own_bytes }
    }

    /// True where the stream can go on at this place.
    pub(super) fn reaches(&self, offset: u64) -> bool {
        (self.begins..=self.read()).contains(&offset)
    }

    fn read(&self) -> u64 {
        self.begins + self.held.len() as u64
    }

    /// Forgets what lies before `offset`; false where that was not read yet.
    pub(super) fn taken(&mut self, offset: u64) -> bool {
        if offset > self.read() {
            return false;
        }
        let gone = offset.saturating_sub(self.begins);
        self.held.drain(..gone as usize);
        self.begins += gone;
        true
    }

    /// The bytes from `offset` on, at most a piece, or how the stream ended there. `None`: as much as may be on its
    /// way is. May be given up at any time.
    pub(super) async fn next(&mut self, offset: u64) -> Option<Next> {
        if offset < self.read() {
            let at = (offset - self.begins) as usize;
            let end = self.held.len().min(at + PIECE_BYTES);
            return Some(Next::piece(self.held.range(at..end).copied().collect()));
        }
        if let Some(end) = &self.end {
            return Some(Next::End(end.clone()));
        }
        if self.held.len() as u64 + PIECE_BYTES as u64 > WINDOW {
            return None;
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        match self.source.output.read_buf(&mut piece).await {
            Ok(0) => {
                let ended = (&mut self.source.ended).await.unwrap_or_else(|gone| Err(io::Error::other(gone)));
                let end = self.ended(ended);
                self.end = Some(end.clone());
                Some(Next::End(end))
            }
            Ok(_) => {
                self.hasher.update(&piece);
                self.held.extend(&piece);
                Some(Next::piece(piece))
            }
            Err(error) => {
                let end = self.ended(Err(error));
                self.end = Some(end.clone());
                Some(Next::End(end))
            }
        }
    }

    fn ended(&self, ended: io::Result<()>) -> Result<(u64, StreamDigest), Cause> {
        ended.map(|()| (self.read(), self.hasher.digest())).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the kernel could not send a file system");
            Cause::new("send_failed", "the file system could not be read on its server")
        })
    }
}

/// What comes next of a stream.
#[derive(Debug)]
pub(super) enum Next {
    Piece(Bytes<PIECE_BYTES>),
    End(Result<(u64, StreamDigest), Cause>),
}

impl Next {
    /// A piece. One that is longer than a message may be would leave a hole: it ends the stream instead.
    fn piece(bytes: Vec<u8>) -> Self {
        Bytes::try_from(bytes).map(Self::Piece).unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a piece of a stream is too long");
            Self::End(Err(Cause::new("send_failed", "the file system could not be sent by its server")))
        })
    }
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, HashMap<TransferId, Entry>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of the transfer, if there is one; whoever was sending it stops.
    pub(super) fn resume(&self, transfer: TransferId) -> Option<Arc<tokio::sync::Mutex<Stream>>> {
        let mut streams = self.lock();
        let entry = streams.get_mut(&transfer)?;
        if let Some(task) = entry.task.take() {
            task.abort();
        }
        entry.idle_since = Some(Instant::now());
        Some(entry.stream.clone())
    }

    /// Puts a new stream in the place of one before; false where there are too many.
    pub(super) fn begin(&self, transfer: TransferId, container: ContainerId, stream: Stream) -> bool {
        let mut streams = self.lock();
        if streams.len() >= MAX_OUTGOING && !streams.contains_key(&transfer) {
            return false;
        }
        let stream = Arc::new(tokio::sync::Mutex::new(stream));
        streams.insert(transfer, Entry { container, stream, task: None, idle_since: Some(Instant::now()) });
        true
    }

    /// Says which task sends the stream now.
    pub(super) fn attend(&self, transfer: TransferId, task: AbortHandle) {
        if let Some(entry) = self.lock().get_mut(&transfer) {
            (entry.task, entry.idle_since) = (Some(task), None);
        }
    }

    /// Says that the stream broke: it is kept for a while.
    pub(super) fn let_go(&self, transfer: TransferId) {
        if let Some(entry) = self.lock().get_mut(&transfer) {
            (entry.task, entry.idle_since) = (None, Some(Instant::now()));
        }
    }

    /// Ends the stream.
    pub(super) fn end(&self, transfer: TransferId) {
        self.lock().remove(&transfer);
    }

    /// Ends every stream of the container, but for those of the transfers in `keep`.
    pub(super) fn end_all_of(&self, container: ContainerId, keep: &[TransferId]) {
        self.lock().retain(|transfer, entry| {
            let stays = entry.container != container || keep.contains(transfer);
            if !stays && let Some(task) = entry.task.take() {
                task.abort();
            }
            stays
        });
    }

    /// Ends streams that nobody has asked for since they broke.
    pub(super) async fn sweep(self: Arc<Self>) {
        let streams = Arc::downgrade(&self);
        drop(self);
        loop {
            tokio::time::sleep(SWEEP).await;
            let Some(streams) = streams.upgrade() else { return };
            streams.lock().retain(|_, entry| entry.idle_since.is_none_or(|since| since.elapsed() < RESUME_TIME));
        }
    }
}
