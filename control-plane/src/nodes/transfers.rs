//! File systems on their way from one node to another. The target asks; the source is ordered over its link to send, and
//! offers its stream; the two are connected. What the source sends is passed on as it is, at the pace at which the
//! target takes it: nothing is kept here beside what the windows of the two streams hold.
//!
//! Whoever has the target's link does this. Where another replica has the source's, that one waits for the offer and
//! passes it on.
//!
//! Only the two servers that the stored transfer names can open its ends, and the source's only while the target waits.

use super::{
    bulk::{BROKEN_OFF, BulkError},
    listener::Context,
    refusal::unavailable,
    remote::OpenError,
    running::{Claim, Progress, Waiting},
};
use crate::store::{
    Store, StoreError, node,
    transfer::{self, NotOpen, Transfer},
};
use bytes::Bytes;
use hoody_protocol::{
    container::Cause,
    id::{ServerId, TransferId},
    link::CommandReply,
    replica::RelayPurpose,
    stream::{self, AskError, StreamError},
    time::now_ms,
    transfer::{MAX_KEPT, PRIORITY, SendOrder, TransferOffer, TransferProgress, TransferReply, TransferRequest},
    transport::PeerIdentity,
};
use quinn::{RecvStream, SendStream};
use std::time::Duration;
use tokio::sync::oneshot;

/// The two directions of a stream.
pub(super) type Ends = (SendStream, RecvStream);

/// Time for the source to keep what it will send: it goes through the file system once.
const ORDER_DEADLINE: Duration = Duration::from_secs(50);
/// Time for the source to offer its stream then.
const OFFER_DEADLINE: Duration = Duration::from_secs(15);
/// Time in which the target must take what is passed on.
const STALL_DEADLINE: Duration = Duration::from_secs(180);
/// Time for one transfer, from its request to its end.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(12 * 3600);
/// Packets' worth of bytes that are passed on at once.
const CHUNKS: usize = 64;

/// What the source offered.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) ends: Ends,
    pub(super) offer: TransferOffer,
}

/// Why a transfer does not begin.
struct Refused {
    cause: Cause,
    retry: bool,
}

fn refused(code: &str, message: &str, retry: bool) -> Refused {
    Refused { cause: Cause::new(code, message), retry }
}

fn failed(error: &StoreError) -> Refused {
    tracing::error!(error = error as &dyn std::error::Error, "look at a transfer");
    Refused { cause: unavailable(), retry: true }
}

/// Connects the target with the source, and passes on until either has enough.
pub(super) async fn answer(
    context: &Context,
    peer: &PeerIdentity,
    (mut send, recv): Ends,
    request: TransferRequest,
) -> Result<(), BulkError> {
    let (row, claim, offered) = match connect(context, peer, request).await {
        Ok(connected) => connected,
        Err(Refused { cause, retry }) => {
            tracing::warn!(server = %peer.server, transfer = %request.transfer, code = %cause.code, "a transfer was refused");
            stream::write(&mut send, &TransferReply::Refused { cause, retry }).await?;
            let _ = send.finish();
            return Ok(());
        }
    };
    let passing = pass_on((send, recv), offered, claim.progress());
    let passed = tokio::select! {
        passed = tokio::time::timeout(TRANSFER_DEADLINE, passing) => passed.map_err(|_| BulkError::Stalled)?,
        () = claim.replaced() => Err(BulkError::Replaced),
    };
    let verdict = passed?;
    if let Err(error) = record(context, &row, &verdict, claim.progress()).await {
        tracing::error!(transfer = %row.id, error = &error as &dyn std::error::Error, "store how a transfer ended");
    }
    hoody_fault::point!("transfer.recorded");
    context.app.nodes.changes.announce(row.container);
    Ok(())
}

async fn connect(
    context: &Context,
    peer: &PeerIdentity,
    request: TransferRequest,
) -> Result<(Transfer, Claim, Offered), Refused> {
    let TransferRequest { transfer: id, offset } = request;
    let store = &context.app.store;
    let row = transfer::open(store, id).await.map_err(|error| failed(&error))?;
    // Whether there is such a transfer is nobody else's business.
    let Some(row) = row.filter(|row| row.target == peer.server) else {
        return Err(not_open(store, id, peer.server).await);
    };
    let (claim, offers) = context.app.nodes.transfers.claim(&row).ok_or_else(|| {
        refused("transfer_busy", "as many file systems are on their way as there can be at once", true)
    })?;
    // One more than the order holds, and this one: the source deletes what the order does not name.
    let mut keep =
        transfer::in_use(store.reader(), row.source_container, MAX_KEPT + 2).await.map_err(|error| failed(&error))?;
    keep.retain(|other| *other != id);
    let keep = keep.try_into().map_err(|_| {
        refused("too_many_transfers", "as many copies of the container's file system are kept as there can be", false)
    })?;
    let order = SendOrder {
        transfer: id,
        container: row.source_container,
        snapshot: row.snapshot,
        base: row.base,
        offset,
        keep,
    };
    let source = source(context, &row, offers).await?;
    match context.app.nodes.ask::<_, CommandReply>(row.source, &order, ORDER_DEADLINE).await {
        Ok(CommandReply::Accepted) => {}
        Ok(CommandReply::Refused(cause)) => {
            let retry = &*cause.code == "transfer_busy";
            return Err(Refused { cause, retry });
        }
        Ok(_) => return Err(refused("node_answer", "the other server gave an answer to something else", false)),
        Err(Some(AskError::Refused(_))) => {
            return Err(refused("transfer_not_supported", "the other server's agent cannot send file systems", false));
        }
        Err(Some(_)) => return Err(refused("source_silent", "the other server did not answer", true)),
        Err(None) => return Err(not_linked(store, row.source).await),
    }
    let offered = match tokio::time::timeout(OFFER_DEADLINE, source.offered(id)).await {
        Ok(Some(offered)) => offered,
        _ => return Err(refused("source_silent", "the other server did not begin to send", true)),
    };
    if offered.offer.offset != offset && offered.offer.offset != 0 {
        return Err(refused("node_answer", "the other server goes on where it cannot", false));
    }
    claim.begin(offered.offer.offset, offered.offer.total);
    hoody_fault::point!("transfer.connected");
    Ok((row, claim, offered))
}

/// Why a transfer cannot be had that is not open, or is to another server.
async fn not_open(store: &Store, id: TransferId, server: ServerId) -> Refused {
    match transfer::not_open(store, id, server).await {
        Ok(NotOpen::Unknown) => refused("transfer_unknown", "there is no such transfer to this server", false),
        Ok(NotOpen::SourceDeleted) => {
            let message =
                "the container that it is copied from was deleted before all of it was there: delete this one";
            refused("transfer_source_deleted", message, false)
        }
        // It had said that it has all of it, and was switched off before its disk had.
        Ok(NotOpen::Lost) => {
            let message = "this server lost what it had received of the container; the server that it came from may \
                still have the container's files: ask the operator before anything is deleted";
            refused("transfer_lost", message, false)
        }
        Err(error) => failed(&error),
    }
}

/// Where the source's offer comes.
enum Source {
    Here(oneshot::Receiver<Offered>),
    /// On a stream from the replica that has the server's link.
    Elsewhere(Ends),
}

/// Has whoever has the source's link wait for its offer, before it is ordered.
async fn source(context: &Context, row: &Transfer, offers: oneshot::Receiver<Offered>) -> Result<Source, Refused> {
    let nodes = &context.app.nodes;
    if nodes.is_linked(row.source) {
        return Ok(Source::Here(offers));
    }
    match nodes.replicas.relay(row.source, RelayPurpose::Transfer(row.id)).await {
        Ok((ends, _)) => Ok(Source::Elsewhere(ends)),
        Err(OpenError::NotLinked) => Err(not_linked(&context.app.store, row.source).await),
        Err(error) => {
            tracing::info!(transfer = %row.id, error = &error as &dyn std::error::Error, "ask the source's replica");
            Err(refused("source_silent", "the replica that the other server is connected to did not answer", true))
        }
    }
}

impl Source {
    async fn offered(self, transfer: TransferId) -> Option<Offered> {
        match self {
            Self::Here(offers) => offers.await.ok(),
            Self::Elsewhere((send, mut recv)) => {
                let offer: TransferOffer = stream::read(&mut recv).await.ok()?;
                (offer.transfer == transfer).then_some(Offered { ends: (send, recv), offer })
            }
        }
    }
}

/// Why this process cannot order the source.
async fn not_linked(store: &Store, source: ServerId) -> Refused {
    let elsewhere = match node::by_id(store, source).await {
        Ok(node) => node.is_some_and(|node| node.linked_to.is_some()),
        Err(error) => return failed(&error),
    };
    if elsewhere {
        let message = "the other server is connected to a replica of the control plane that this one does not reach";
        return refused("source_elsewhere", message, true);
    }
    refused("source_offline", "the other server is not connected", true)
}

/// Takes the source's end of a transfer for which the target waits.
pub(super) async fn offered(
    context: &Context,
    peer: &PeerIdentity,
    ends: Ends,
    offer: TransferOffer,
) -> Result<(), BulkError> {
    let nodes = &context.app.nodes;
    // Of the replica that passes it on now, first: this process may have done so before.
    let Err(offered) = nodes.offers.deliver(offer.transfer, peer.server, Offered { ends, offer }) else {
        return Ok(());
    };
    let refused = match nodes.transfers.take(offered.offer.transfer, peer.server) {
        Some(Waiting(sender)) => match sender.send(offered) {
            Ok(()) => return Ok(()),
            Err(Offered { ends, .. }) => ends,
        },
        None => offered.ends,
    };
    let (mut send, _recv) = refused;
    tracing::warn!(server = %peer.server, transfer = %offer.transfer, "nobody waits for what a node offers");
    let cause = Cause::new("transfer_unknown", "nobody waits for this transfer from this server");
    stream::write(&mut send, &TransferReply::Refused { cause, retry: false }).await?;
    let _ = send.finish();
    Ok(())
}

/// Passes on in both directions until the target's verdict.
async fn pass_on(target: Ends, offered: Offered, progress: &Progress) -> Result<TransferProgress, BulkError> {
    let Offered { ends: (mut to_source, mut from_source), offer } = offered;
    let (mut to_target, mut from_target) = target;
    for send in [&mut to_source, &mut to_target] {
        let _ = send.set_priority(PRIORITY);
        stream::write(send, &TransferReply::Begin { offset: offer.offset }).await?;
    }
    let verdict = {
        let data = forward(&mut from_source, &mut to_target);
        let verdict = verdict(&mut from_target, &mut to_source, progress);
        tokio::pin!(data, verdict);
        tokio::select! {
            said = &mut verdict => said,
            sent = &mut data => match sent {
                // All of it: the target has yet to look.
                Ok(()) => verdict.await,
                Err(error) => Err(error),
            },
        }
    };
    match &verdict {
        Ok(_) => {
            let _ = to_target.finish();
            let _ = to_source.finish();
        }
        Err(_) => {
            let _ = to_target.reset(BROKEN_OFF);
            let _ = to_source.reset(BROKEN_OFF);
        }
    }
    verdict
}

async fn forward(from: &mut RecvStream, to: &mut SendStream) -> Result<(), BulkError> {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    while let Some(count) = from.read_chunks(&mut chunks).await.map_err(StreamError::from)? {
        // In one piece: for each packet that it sends, quinn goes through all pieces that are not acknowledged yet, and
        // there are thousands of the size of a packet.
        let gathered = Bytes::from(chunks[..count].concat());
        let written = tokio::time::timeout(STALL_DEADLINE, to.write_chunk(gathered)).await;
        written.map_err(|_| BulkError::Stalled)?.map_err(StreamError::from)?;
    }
    // Refused only where the stream is gone already.
    let _ = to.finish();
    Ok(())
}

async fn verdict(
    from: &mut RecvStream,
    to: &mut SendStream,
    progress: &Progress,
) -> Result<TransferProgress, BulkError> {
    loop {
        let said: TransferProgress = stream::read(from).await?;
        if let TransferProgress::Taken(bytes) = said {
            progress.reached(bytes);
        }
        // Where the source has ended, what the target says still counts.
        let told = stream::write(to, &said).await;
        match said {
            TransferProgress::Taken(_) => told?,
            verdict => return Ok(verdict),
        }
    }
}

async fn record(
    context: &Context,
    row: &Transfer,
    verdict: &TransferProgress,
    progress: &Progress,
) -> Result<(), StoreError> {
    let mut tx = context.app.store.begin().await?;
    match verdict {
        TransferProgress::Kept => {
            transfer::keep(&mut tx, row.id, progress.bytes(), now_ms() as i64).await?;
            tracing::info!(transfer = %row.id, container = %row.container, bytes = progress.bytes(), "a transfer arrived");
        }
        TransferProgress::Failed(cause) => {
            tracing::warn!(transfer = %row.id, container = %row.container, code = %cause.code, "a transfer failed");
            transfer::note_failure(&mut tx, row.id, cause).await?;
        }
        TransferProgress::Taken(_) => {}
    }
    tx.commit().await?;
    Ok(())
}
