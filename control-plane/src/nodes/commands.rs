//! Commands on the server itself: sends those that the node does not have, and follows each on a stream of its own
//! until its output and outcome are stored. On every wake-up the store is read anew, so that start, retry after a
//! broken link or a restart of either side, and a missed wake-up are one path.

use super::link::Link;
use crate::store::{
    StoreError,
    command::{
        execution::{self, Open},
        output,
    },
};
use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use hoody_protocol::{
    codec::Frame,
    command::{CommandControl, CommandUpdate, MAX_CHUNKS, MAX_RUNNING},
    container::Cause,
    id::ExecutionId,
    link::Refusal,
    stream::{self as frames, StreamError},
    time::now_ms,
};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Time for the node to persist a command and say so.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(20);
/// What a node has beyond a command's own time, to end it and to send all of its output.
const END_SLACK: Duration = Duration::from_secs(120);
/// Pause before a command is looked at again.
const PAUSE: Duration = Duration::from_millis(500);
/// What a node answers that runs as many as it may.
const BUSY: &str = "busy";
/// The store is read anew after this time even without a wake-up.
const REREAD: Duration = Duration::from_secs(30);

/// Why a command is to be tried again.
#[derive(Debug, thiserror::Error)]
enum Retry {
    #[error("database")]
    Store(#[from] StoreError),
    #[error("the connection ended")]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the node did not answer in time")]
    Deadline,
    #[error("the node sent {0}")]
    Protocol(&'static str),
}

/// Sends and follows until the link drops this.
pub(super) async fn run(link: &Link) {
    let mut following = FuturesUnordered::new();
    let mut cancels: HashMap<ExecutionId, watch::Sender<bool>> = HashMap::new();
    let mut paused: HashMap<ExecutionId, Instant> = HashMap::new();
    loop {
        match execution::open(&link.context.app.store, link.server()).await {
            Ok(open) => {
                paused.retain(|id, _| open.iter().any(|open| open.request.id == *id));
                for open in open {
                    let id = open.request.id;
                    if let Some(cancel) = cancels.get(&id) {
                        if open.cancel {
                            cancel.send_replace(true);
                        }
                        continue;
                    }
                    if cancels.len() == MAX_RUNNING || paused.get(&id).is_some_and(|until| *until > Instant::now()) {
                        continue;
                    }
                    let cancel = watch::Sender::new(open.cancel);
                    let cancelled = cancel.subscribe();
                    cancels.insert(id, cancel);
                    following.push(async move { (id, follow(link, open, cancelled).await) });
                }
            }
            Err(error) => {
                tracing::error!(server = %link.server(), error = &error as &dyn std::error::Error, "read commands");
            }
        }
        let next = paused.values().filter(|until| **until > Instant::now()).min().copied();
        let reread = Instant::now() + REREAD;
        tokio::select! {
            () = link.wakes.commands.notified() => {}
            () = tokio::time::sleep_until(next.map_or(reread, |next| next.min(reread))) => {}
            Some((id, followed)) = following.next() => {
                cancels.remove(&id);
                // One that is over is not read again; whatever else happened, it is tried again.
                paused.insert(id, Instant::now() + PAUSE);
                if let Err(error) = followed {
                    tracing::warn!(server = %link.server(), execution = %id,
                        error = &error as &dyn std::error::Error, "a command is asked for again");
                }
            }
        }
    }
}

/// Sends a command, or asks how far it is, and stores what comes until it is over.
async fn follow(link: &Link, open: Open, cancelled: watch::Receiver<bool>) -> Result<(), Retry> {
    let Open { mut request, begin_before, dispatched, .. } = open;
    let (id, store, executions) = (request.id, &link.context.app.store, &link.context.app.nodes.executions);
    let now = now_ms() as i64;
    if !dispatched && !execution::mark_dispatched(store, id, now).await? {
        execution::expire(store, now).await?;
        executions.announce(id);
        return Ok(());
    }
    hoody_fault::point!("execution.marked");
    executions.announce(id);
    // One that was sent before may have got through: then the node knows it. Otherwise it learns that it is late.
    request.begin_within_ms = u64::try_from(begin_before - now).unwrap_or(0);
    let last = Instant::now() + Duration::from_millis(request.timeout_ms) + END_SLACK;
    let (mut send, recv) = link.connection.open_bi().await?;
    frames::write(&mut send, &request).await?;
    hoody_fault::point!("execution.sent");
    // A frame that has arrived in part is kept while something else is awaited.
    let updates = stream::unfold(recv, |mut recv| async {
        let frame = frames::read_frame(&mut recv).await;
        Some((frame, recv))
    });
    let mut updates = std::pin::pin!(updates);
    let mut cancelled = Cancelled(Some(cancelled));
    let (mut accepted, mut pieces) = (false, 0);
    loop {
        let deadline = if accepted { last } else { Instant::now() + ACCEPT_DEADLINE };
        let frame = tokio::select! {
            Some(frame) = updates.next() => frame?,
            () = cancelled.wait() => {
                frames::write(&mut send, &CommandControl::Cancel).await?;
                continue;
            }
            () = tokio::time::sleep_until(deadline) => return Err(Retry::Deadline),
        };
        match update(frame)? {
            CommandUpdate::Accepted => {
                hoody_fault::point!("execution.accepted");
                accepted = true;
            }
            CommandUpdate::Output(chunk) => {
                pieces += 1;
                if pieces > MAX_CHUNKS {
                    return Err(Retry::Protocol("more output than it may"));
                }
                let write = store
                    .write(move |connection| Box::pin(async move { output::append(connection, id, &chunk).await }));
                if !write.await? {
                    return Err(Retry::Protocol("output that does not follow what is stored"));
                }
                executions.announce(id);
                hoody_fault::point!("execution.output");
            }
            CommandUpdate::Ended(outcome) if outcome.id != id => {
                return Err(Retry::Protocol("another command's outcome"));
            }
            CommandUpdate::Ended(outcome) => {
                hoody_fault::point!("execution.storing");
                let server = link.server();
                let write = store.write(move |connection| {
                    Box::pin(
                        async move { execution::record_outcome(connection, server, &outcome, now_ms() as i64).await },
                    )
                });
                write.await?;
                hoody_fault::point!("execution.finished");
                executions.announce(id);
                frames::write(&mut send, &CommandControl::Stored).await?;
                let _ = send.finish();
                return Ok(());
            }
            // It may still run what another link has sent.
            CommandUpdate::Refused(cause) if &*cause.code == BUSY && request.begin_within_ms > 0 => return Ok(()),
            CommandUpdate::Refused(cause) => {
                let server = link.server();
                let write = store.write(move |connection| {
                    Box::pin(async move { execution::refuse(connection, server, id, cause, now_ms() as i64).await })
                });
                write.await?;
                executions.announce(id);
                return Ok(());
            }
        }
    }
}

/// An agent that does not know commands refuses the message.
fn update(frame: Frame) -> Result<CommandUpdate, Retry> {
    if frame.is::<Refusal>() {
        let message = "the agent of this server knows no commands: upgrade it";
        return Ok(CommandUpdate::Refused(Cause::new("unsupported", message)));
    }
    Ok(frame.decode().map_err(StreamError::from)?)
}

/// Somebody asked for the end; told once.
#[derive(Debug)]
struct Cancelled(Option<watch::Receiver<bool>>);

impl Cancelled {
    async fn wait(&mut self) {
        if let Some(asked) = &mut self.0
            && asked.wait_for(|asked| *asked).await.is_ok()
        {
            self.0 = None;
            return;
        }
        std::future::pending().await
    }
}
