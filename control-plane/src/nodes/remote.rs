//! Streams to a node for what is neither state nor operation: a process, a terminal, a log. Whoever asked has gone
//! when the stream is dropped, and the node then ends what it does for it.

use super::Nodes;
use hoody_protocol::{
    container::Cause,
    exec::{PIECE_BYTES, ProcessInput, ProcessOutput, TerminalSize},
    flow::{Allowance, Overrun, Received},
    id::ServerId,
    link::Refusal,
    logs::{LogBatch, LogMore},
    stream::{self, StreamError},
    tag::Message,
};
use quinn::{RecvStream, SendStream};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::AbortHandle,
    time::timeout,
};

/// How long a node that has its streams taken by others is waited for.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Messages of a process that wait for whoever reads them; the window allows for fewer.
const QUEUE: usize = 4096;

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server is not linked to this process, nor to a replica that is reached.
    #[error("the server is not reached")]
    NotLinked,
    /// Too many streams are open on the link, or on the connection to the replica that has it.
    #[error("too many streams are open on the link")]
    TooMany,
    /// The node did not take it in time.
    #[error("the node did not take the stream in time")]
    Deadline,
    /// The link broke.
    #[error("the link broke")]
    Broken(#[source] StreamError),
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The node refused: it does not know this, or cannot do it.
    #[error("the node refused: {}", .0.message)]
    Refused(Cause),
    /// The link broke, or the node ended the stream early.
    #[error("the link broke")]
    Broken(#[from] StreamError),
    /// The node did not keep to the window.
    #[error(transparent)]
    Overrun(#[from] Overrun),
}

/// A stream on which something was asked for.
#[derive(Debug)]
pub struct RemoteStream {
    send: SendStream,
    recv: RecvStream,
    permit: Option<OwnedSemaphorePermit>,
}

pub(super) async fn open<Q: Message>(nodes: &Nodes, server: ServerId, request: &Q) -> Result<RemoteStream, OpenError> {
    let opened = async {
        let ((mut send, recv), permit) = nodes.conversation(server).await?;
        stream::write(&mut send, request).await.map_err(OpenError::Broken)?;
        Ok(RemoteStream { send, recv, permit })
    };
    timeout(OPEN_DEADLINE, opened).await.map_err(|_| OpenError::Deadline)?
}

/// A process or terminal on a node: what it says. Dropping this ends the conversation.
#[derive(Debug)]
pub struct RemoteProcess {
    outputs: mpsc::Receiver<Result<ProcessOutput, RemoteError>>,
    received: Arc<Mutex<Received>>,
    send: Arc<tokio::sync::Mutex<SendStream>>,
    reading: AbortHandle,
    _permit: Option<OwnedSemaphorePermit>,
}

/// What a process or terminal on a node is told.
#[derive(Debug, Clone)]
pub struct RemoteInput {
    send: Arc<tokio::sync::Mutex<SendStream>>,
    allowance: Arc<Allowance>,
}

impl RemoteStream {
    /// The two sides of a process or terminal.
    pub fn into_process(self) -> (RemoteProcess, RemoteInput) {
        let Self { send, recv, permit } = self;
        let send = Arc::new(tokio::sync::Mutex::new(send));
        let (sender, outputs) = mpsc::channel(QUEUE);
        let (allowance, received) = (Arc::new(Allowance::default()), Arc::new(Mutex::new(Received::default())));
        let reading = tokio::spawn(read(recv, sender, allowance.clone(), received.clone())).abort_handle();
        let process = RemoteProcess { outputs, received, send: send.clone(), reading, _permit: permit };
        (process, RemoteInput { send, allowance })
    }

    /// A log.
    pub fn into_log(self) -> RemoteLog {
        RemoteLog { send: self.send, recv: self.recv, _permit: self.permit }
    }
}

/// Reads everything at once, within the window: a client that stands still holds up nobody else on the link.
async fn read(
    mut recv: RecvStream,
    outputs: mpsc::Sender<Result<ProcessOutput, RemoteError>>,
    allowance: Arc<Allowance>,
    received: Arc<Mutex<Received>>,
) {
    loop {
        let next = next_output(&mut recv, &allowance, &received).await;
        let last = next.is_err();
        match next {
            Ok(None) => {}
            Ok(Some(output)) => {
                if outputs.send(Ok(output)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = outputs.send(Err(error)).await;
            }
        }
        if last {
            return;
        }
    }
}

async fn next_output(
    recv: &mut RecvStream,
    allowance: &Allowance,
    received: &Mutex<Received>,
) -> Result<Option<ProcessOutput>, RemoteError> {
    let frame = stream::read_frame(recv).await?;
    if frame.is::<Refusal>() {
        return Err(RemoteError::Refused(frame.decode::<Refusal>().map_err(StreamError::from)?.cause));
    }
    let output: ProcessOutput = frame.decode().map_err(StreamError::from)?;
    match &output {
        ProcessOutput::Credit(bytes) => {
            allowance.grant(*bytes)?;
            return Ok(None);
        }
        ProcessOutput::Output(bytes) | ProcessOutput::Error(bytes) => {
            received.lock().unwrap_or_else(PoisonError::into_inner).arrived(bytes.len())?;
        }
        _ => {}
    }
    Ok(Some(output))
}

impl RemoteProcess {
    /// What comes next. May be dropped while it waits without losing anything.
    pub async fn next(&mut self) -> Result<ProcessOutput, RemoteError> {
        self.outputs.recv().await.unwrap_or(Err(RemoteError::Broken(StreamError::Finished)))
    }

    /// Says that a message with so many bytes of output was taken.
    pub async fn taken(&self, bytes: usize) -> Result<(), RemoteError> {
        let credit = self.received.lock().unwrap_or_else(PoisonError::into_inner).taken(bytes);
        match credit {
            Some(credit) => match write(&self.send, &ProcessInput::Credit(credit)).await {
                // A node whose process has ended takes nothing more; what it sent before is still to be read.
                Ok(()) | Err(StreamError::Write(_)) => Ok(()),
                Err(error) => Err(error.into()),
            },
            None => Ok(()),
        }
    }
}

impl Drop for RemoteProcess {
    fn drop(&mut self) {
        self.reading.abort();
        // Held only while a message is written; whoever writes then finds the stream stopped by the node.
        if let Ok(mut send) = self.send.try_lock() {
            // Nothing is lost where it has ended already.
            let _ = send.reset(stream::CANCELLED);
        }
    }
}

impl RemoteInput {
    /// Sends bytes, as the process takes them.
    pub async fn data(&self, bytes: &[u8]) -> Result<(), RemoteError> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.allowance.take(piece.len()).await;
            let piece = piece.to_vec().try_into().unwrap_or_default();
            write(&self.send, &ProcessInput::Data(piece)).await?;
        }
        Ok(())
    }

    /// Sends the end of the input.
    pub async fn end(&self) -> Result<(), RemoteError> {
        Ok(write(&self.send, &ProcessInput::End).await?)
    }

    /// Sends the size of the terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), RemoteError> {
        Ok(write(&self.send, &ProcessInput::Resize(size)).await?)
    }
}

/// A message is written whole, also where whoever asked for it does not wait: half of one would break the stream.
async fn write(send: &Arc<tokio::sync::Mutex<SendStream>>, message: &ProcessInput) -> Result<(), StreamError> {
    let mut send = send.clone().lock_owned().await;
    let message = message.clone();
    let written = tokio::spawn(async move { stream::write(&mut send, &message).await });
    written.await.unwrap_or(Err(StreamError::Finished))
}

/// A log on a node.
#[derive(Debug)]
pub struct RemoteLog {
    send: SendStream,
    recv: RecvStream,
    _permit: Option<OwnedSemaphorePermit>,
}

impl RemoteLog {
    /// The next records: up to `bytes` of text, but at least one. Dropped while it waits, it cannot go on.
    pub async fn next(&mut self, bytes: u32) -> Result<LogBatch, RemoteError> {
        stream::write(&mut self.send, &LogMore { bytes }).await?;
        let frame = stream::read_frame(&mut self.recv).await?;
        if frame.is::<Refusal>() {
            return Err(RemoteError::Refused(frame.decode::<Refusal>().map_err(StreamError::from)?.cause));
        }
        Ok(frame.decode().map_err(StreamError::from)?)
    }
}
