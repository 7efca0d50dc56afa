//! A process that runs to its end while somebody waits. Whatever happens first ends it with everything that it
//! started: its own end, the time limit, or that nobody waits any more (this future is dropped, or the peer is gone).

use super::{
    Execs, cause,
    peer::{Input, Peer, piece, took},
    request, too_many,
};
use crate::runtime::{AttendRequest, Outputs};
use hoody_protocol::{
    bounded::Bytes,
    container::Cause,
    exec::{ExecRequest, Exit, PIECE_BYTES, ProcessEnd, ProcessOutput},
    flow::{Allowance, Received},
    time::now_ms,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

/// The longest that a process may run.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long a killed process has to be gone, and its last output to be read; a frozen one is not waited for.
const GRACE: Duration = Duration::from_secs(3);
/// Output beyond what is wanted is read so that the process can go on, at this pace: a flood must not keep the node busy.
const EXCESS_PAUSE: Duration = Duration::from_millis(10);
const EXCESS_BYTES: usize = 64 << 10;

/// Runs the process and tells the peer all about it.
pub async fn run(execs: Execs, exec: ExecRequest, peer: Peer) {
    let container = exec.container;
    let Ok(slot) = execs.0.slots.take(container) else {
        let _ = peer.send(ProcessOutput::Failed(too_many(super::TooMany))).await;
        return;
    };
    let wanted = AttendRequest { command: request(exec.command), terminal: None };
    let started_at = now_ms();
    let limit = Duration::from_millis(exec.limit_ms).min(LONGEST);
    let turn = slot.turn().await;
    let started = execs.0.attend.attend(container, &wanted).await;
    drop(turn);
    let (mut process, outputs) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = peer.send(ProcessOutput::Failed(cause(container, &error))).await;
            return;
        }
    };
    let Outputs::Pipes { stdin, stdout, stderr } = outputs else { return };
    let Peer { input, output, allowance, received } = peer;
    if output.send(ProcessOutput::Started).await.is_err() {
        return;
    }
    let mut feeding = tokio::spawn(feed(input, stdin, output.clone(), received));
    let dropped = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let mut draining = JoinSet::new();
    let drain = |wrap, dropped: &Arc<AtomicU64>| Drain {
        output: output.clone(),
        allowance: allowance.clone(),
        left: exec.output_bytes,
        dropped: dropped.clone(),
        wrap,
    };
    draining.spawn(drain(ProcessOutput::Output, &dropped[0]).run(stdout));
    draining.spawn(drain(ProcessOutput::Error, &dropped[1]).run(stderr));
    let (exit, killed) = tokio::select! {
        exit = process.ended() => (exit, None),
        () = sleep(limit) => {
            process.kill();
            let exit = timeout(GRACE, process.ended()).await.unwrap_or(Exit::Unknown);
            (exit, Some(Cause::new("timeout", "it took longer than it was allowed to, and was killed")))
        }
        // Returns where the peer has gone; dropping the process kills it.
        _ = &mut feeding => return,
        () = output.closed() => return,
    };
    feeding.abort();
    // What it left running is being killed, so both pipes come to their end.
    let _ = timeout(GRACE, async { while draining.join_next().await.is_some() {} }).await;
    let [output_dropped, error_dropped] = dropped.map(|count| count.load(Ordering::Relaxed));
    let end = ProcessEnd { exit, cause: killed, output_dropped, error_dropped, started_at, ended_at: now_ms() };
    let _ = output.send(ProcessOutput::Ended(end)).await;
    drop(slot);
}

/// Writes what comes to the process; returns where the peer has gone, and only then.
async fn feed(
    mut input: mpsc::UnboundedReceiver<Input>,
    stdin: pipe::Sender,
    output: mpsc::Sender<ProcessOutput>,
    received: Arc<Mutex<Received>>,
) {
    let mut stdin = Some(stdin);
    while let Some(input) = input.recv().await {
        match input {
            Input::Data(bytes) => {
                // A process that has closed its input is not interested, and whoever sends may go on.
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
                if took(&received, &output, bytes.len()).await.is_err() {
                    return;
                }
            }
            Input::End => stdin = None,
            Input::Resize(_) => {}
        }
    }
}

/// Sends one output of a process, up to a number of bytes.
struct Drain {
    output: mpsc::Sender<ProcessOutput>,
    allowance: Arc<Allowance>,
    left: u64,
    dropped: Arc<AtomicU64>,
    wrap: fn(Bytes<PIECE_BYTES>) -> ProcessOutput,
}

impl Drain {
    async fn run(mut self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; PIECE_BYTES];
        while self.left > 0 {
            let most = usize::try_from(self.left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let count = match pipe.read(&mut buffer[..most]).await {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            self.allowance.take(count).await;
            if self.output.send((self.wrap)(piece(&buffer[..count]))).await.is_err() {
                return;
            }
            self.left -= count as u64;
        }
        buffer.resize(EXCESS_BYTES, 0);
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            self.dropped.fetch_add(count as u64, Ordering::Relaxed);
            sleep(EXCESS_PAUSE).await;
        }
    }
}
