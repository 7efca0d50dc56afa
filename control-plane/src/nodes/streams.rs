//! Streams that the agent opens on a link: reports and renewals (bidirectional), measurements
//! (unidirectional). QUIC bounds how many are open at once.

use super::{
    enrol,
    link::Link,
    pace::Pace,
    refusal::{self, TOO_OFTEN},
    reports,
};
use crate::{service::server::pool, store::dispatch as work};
use futures::{StreamExt, stream::FuturesUnordered};
use hoody_protocol::{
    codec::{DecodeError, Frame},
    container::Cause,
    enrol::{EnrolReply, RenewRequest},
    link::{Refusal, ReportBatch},
    stats::StatsBatch,
    stream::{self, MALFORMED, StreamError},
    tag::Message,
};
use quinn::{RecvStream, SendStream};
use std::time::Duration;
use tokio::time::Instant;

/// The containers of a server are read anew for an unknown one at most this often.
const REREAD_PAUSE: Duration = Duration::from_secs(2);
/// And in any case after this time, so that what was deleted goes.
const REREAD_AFTER: Duration = Duration::from_secs(60);

/// Batches of measurements that one node may send at once, and a second in the long run: a batch holds 256
/// containers, and the shortest pause between two rounds is a fifth of a second.
const MEASUREMENTS_BURST: f64 = 64.0;
const MEASUREMENTS_PER_SECOND: f64 = 20.0;
/// Renewals of a certificate at once, and a second in the long run.
const RENEWALS_BURST: f64 = 5.0;
const RENEWALS_PER_SECOND: f64 = 1.0 / 60.0;

/// The pace of a link's measurements.
pub(super) fn measurements_pace() -> Pace {
    Pace::new(MEASUREMENTS_BURST, MEASUREMENTS_PER_SECOND)
}

/// The pace of a link's renewals.
pub(super) fn renewals_pace() -> Pace {
    Pace::new(RENEWALS_BURST, RENEWALS_PER_SECOND)
}

/// Accepts bidirectional streams until the connection ends.
pub(super) async fn bidirectional(link: &Link) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = link.connection.accept_bi() => match accepted {
                Ok((send, recv)) => open.push(answer(link, send, recv)),
                // The connection's end is noticed by the link.
                Err(_) => std::future::pending().await,
            },
            Some(()) = open.next() => {}
        }
    }
}

/// Answers the messages of one stream until the agent ends it.
async fn answer(link: &Link, mut send: SendStream, mut recv: RecvStream) {
    loop {
        let done = match stream::read_frame(&mut recv).await {
            Ok(frame) => reply(link, &mut send, &frame).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {}
            Err(StreamError::Finished | StreamError::Read(_) | StreamError::Write(_)) => {
                let _ = send.finish();
                return;
            }
            Err(error) => {
                link.misunderstood(&error);
                if !refusal::refuse(&mut send, &mut recv, &error).await {
                    return;
                }
            }
        }
    }
}

async fn reply(link: &Link, send: &mut SendStream, frame: &Frame) -> Result<(), StreamError> {
    match frame.tag {
        ReportBatch::TAG => match reports::ingest(link, frame.decode()?).await {
            Ok(ack) => {
                stream::write(send, &ack).await?;
                hoody_fault::point!("batch.acknowledged");
                Ok(())
            }
            Err(cause) => stream::write(send, &Refusal { cause }).await,
        },
        RenewRequest::TAG => {
            let request = frame.decode()?;
            let reply = if link.renewals.lock().await.try_take(Instant::now()) {
                enrol::renew(&link.context, link.server(), &request).await
            } else {
                EnrolReply::Refused(Cause::new(TOO_OFTEN, "the certificate was renewed several times just now"))
            };
            stream::write(send, &reply).await
        }
        got => Err(DecodeError::UnexpectedTag { got, expected: "ReportBatch or RenewRequest" }.into()),
    }
}

/// Accepts streams of measurements until the connection ends.
pub(super) async fn unidirectional(link: &Link) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = link.connection.accept_uni() => match accepted {
                Ok(recv) => open.push(measurements(link, recv)),
                Err(_) => std::future::pending().await,
            },
            Some(()) = open.next() => {}
        }
    }
}

async fn measurements(link: &Link, mut recv: RecvStream) {
    // Waited for before the batch is read: what a node sends too often stays with the node.
    let wait = link.measurements.lock().await.take(1, Instant::now());
    tokio::time::sleep(wait).await;
    match stream::read::<StatsBatch>(&mut recv).await {
        Ok(batch) => record(link, batch).await,
        Err(StreamError::Finished | StreamError::Read(_)) => {}
        Err(error) => {
            link.misunderstood(&error);
            let _ = recv.stop(MALFORMED);
        }
    }
}

/// Keeps the measurements of containers that are this server's.
async fn record(link: &Link, batch: StatsBatch) {
    let mut containers = link.containers.lock().await;
    let (known, read) = &mut *containers;
    let unknown = batch.containers.iter().any(|stats| !known.contains(&stats.container));
    if (unknown && read.elapsed() > REREAD_PAUSE) || read.elapsed() > REREAD_AFTER {
        match work::containers_of(&link.context.app.store, link.server()).await {
            Ok(found) => *known = found.into_iter().collect(),
            // What was known is still right; the next batch tries again.
            Err(error) => tracing::warn!(server = %link.server(), error = &error as &dyn std::error::Error,
                "read the containers of a server"),
        }
        *read = Instant::now();
    }
    let (app, server, mut told) = (&link.context.app, link.server(), link.pool.lock().await);
    match pool::note(app, server, *told, &batch.node).await {
        Ok(now) => *told = now,
        // The next batch tries again.
        Err(error) => tracing::warn!(%server, error = &error as &dyn std::error::Error, "note how full a pool is"),
    }
    drop(told);
    link.context.app.nodes.measurements.record(link.server(), batch, |container| known.contains(&container));
}
