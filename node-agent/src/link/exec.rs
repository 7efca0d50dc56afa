//! Streams of processes and terminals: frames on one side, a [`Peer`] on the other. What comes is read at once and
//! counted against the window, so that a process that does not read holds up nothing but its own sender.

use crate::exec::{self, Execs, Input, Peer};
use hoody_protocol::{
    exec::{ExecRequest, ProcessInput, ProcessOutput, TerminalRequest},
    flow::{Allowance, Overrun, Received},
    stream::{self, StreamError},
};
use quinn::{RecvStream, SendStream};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Messages that wait for the stream.
const QUEUE: usize = 4;

/// Runs a process for whoever is at the other end of the stream.
pub(super) async fn once(send: SendStream, recv: RecvStream, execs: Execs, request: ExecRequest) {
    serve(send, recv, |peer| exec::run_once(execs, request, peer)).await;
}

/// Connects whoever is at the other end of the stream to a terminal.
pub(super) async fn terminal(send: SendStream, recv: RecvStream, execs: Execs, request: TerminalRequest) {
    serve(send, recv, |peer| exec::connect(execs, request, peer)).await;
}

async fn serve<F: Future<Output = ()>>(send: SendStream, recv: RecvStream, work: impl FnOnce(Peer) -> F) {
    // What everything else sends goes first.
    let _ = send.set_priority(stream::EXEC_PRIORITY);
    let (inputs, input) = mpsc::unbounded_channel();
    let (output, outputs) = mpsc::channel(QUEUE);
    let (allowance, received) = (Arc::new(Allowance::default()), Arc::new(Mutex::new(Received::default())));
    let peer = Peer { input, output, allowance: allowance.clone(), received: received.clone() };
    let work = work(peer);
    let listening = listen(recv, inputs, allowance, received);
    // The listener's end closes the input, by which the work sees that the peer has gone.
    let both = async {
        tokio::pin!(work, listening);
        tokio::select! {
            () = &mut work => {}
            () = &mut listening => work.await,
        }
    };
    tokio::join!(both, write(send, outputs));
}

/// Writes what there is until there is no more, or nobody reads it.
async fn write(mut send: SendStream, mut outputs: mpsc::Receiver<ProcessOutput>) {
    loop {
        tokio::select! {
            message = outputs.recv() => match message {
                None => break,
                Some(message) => {
                    if stream::write_patiently(&mut send, &message).await.is_err() {
                        return;
                    }
                }
            },
            _ = send.stopped() => return,
        }
    }
    let _ = send.finish();
    // The last message is to arrive before the stream is let go.
    let _ = send.stopped().await;
}

/// Why the peer is no longer listened to.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Overrun(#[from] Overrun),
    #[error("a message that is not expected here")]
    Unexpected,
}

async fn listen(
    mut recv: RecvStream,
    inputs: mpsc::UnboundedSender<Input>,
    allowance: Arc<Allowance>,
    received: Arc<Mutex<Received>>,
) {
    let mut ended = false;
    let listened = async {
        loop {
            let input = match stream::read::<ProcessInput>(&mut recv).await? {
                ProcessInput::Data(bytes) if bytes.is_empty() || ended => return Err(ListenError::Unexpected),
                ProcessInput::Data(bytes) => {
                    received.lock().unwrap_or_else(PoisonError::into_inner).arrived(bytes.len())?;
                    Input::Data(bytes.into_inner())
                }
                ProcessInput::End if ended => return Err(ListenError::Unexpected),
                ProcessInput::End => {
                    ended = true;
                    Input::End
                }
                ProcessInput::Resize(size) => Input::Resize(size),
                ProcessInput::Credit(bytes) => {
                    allowance.grant(bytes)?;
                    continue;
                }
            };
            if inputs.send(input).is_err() {
                // The work is done; what the peer still sends does not matter.
                return Ok::<(), ListenError>(());
            }
        }
    };
    match listened.await {
        Ok(()) | Err(ListenError::Stream(StreamError::Finished | StreamError::Read(_))) => {}
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a process's stream was ended");
            let _ = recv.stop(stream::MALFORMED);
        }
    }
}
