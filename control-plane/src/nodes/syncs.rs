//! Syncs of a server's containers: has the node have the transfer of each, and then the service put it in place. On every
//! wake-up the store is read anew, so that start, retry after a broken link or a restart of either side, and a missed
//! wake-up are one path. An order stands for as long as the transfer takes; a node that is ordered again goes on.

use super::link::Link;
use crate::{
    error::ServiceError,
    service::container::sync as service,
    store::{
        StoreError,
        sync::{self, Sync},
        transfer,
    },
};
use futures::{StreamExt, stream::FuturesUnordered};
use hoody_protocol::{
    container::Cause,
    id::TransferId,
    link::CommandReply,
    snapshot::Origin,
    stream::{self, AskError},
    time::now_ms,
    transfer::{MAX_KEPT, ReceiveOrder},
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// Orders that stand at once: as many as a node receives at once.
const MAX_STANDING: usize = 2;
/// Time for one transfer.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(12 * 3600);
/// Pause before a transfer is ordered again, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a transfer is ordered again where what it needs is away: nobody expects a sync hours after asking.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The store is read anew after this time even without a wake-up.
const REREAD: Duration = Duration::from_secs(60);
/// What passes by itself.
const TEMPORARY: [&str; 8] = [
    "transfer_busy",
    "transfer_interrupted",
    "source_offline",
    "source_elsewhere",
    "source_silent",
    "unavailable",
    "transfer_damaged",
    "transfer_ended",
];
/// What a transfer is the difference from is gone on either side.
const NO_BASE: &str = "transfer_base_missing";

/// Why a transfer is to be ordered again.
#[derive(Debug, thiserror::Error)]
enum Retry {
    #[error("database")]
    Store(#[from] StoreError),
    #[error("put it in place")]
    Service(#[from] ServiceError),
    #[error("order it")]
    Ask(#[from] AskError),
    #[error("the node cannot have it now: {}", .0.message)]
    Later(Cause),
    #[error("what it was the difference from is gone: all of it is sent")]
    Whole,
}

/// Orders and waits until the link drops this.
pub(super) async fn run(link: &Link) {
    let mut standing = FuturesUnordered::new();
    let mut busy: HashSet<TransferId> = HashSet::new();
    let mut paused: HashMap<TransferId, (Instant, Duration)> = HashMap::new();
    loop {
        match sync::waiting(&link.context.app.store, link.server()).await {
            Ok(waiting) => {
                paused.retain(|id, _| waiting.iter().any(|sync| sync.transfer.id == *id));
                for sync in waiting {
                    let id = sync.transfer.id;
                    let early = paused.get(&id).is_some_and(|(until, _)| *until > Instant::now());
                    if busy.len() < MAX_STANDING && !early && busy.insert(id) {
                        standing.push(async move { (id, follow(link, &sync).await) });
                    }
                }
            }
            Err(error) => {
                tracing::error!(server = %link.server(), error = &error as &dyn std::error::Error, "read syncs");
            }
        }
        let next = paused.values().map(|(until, _)| *until).filter(|until| *until > Instant::now()).min();
        let reread = Instant::now() + REREAD;
        tokio::select! {
            () = link.wakes.syncs.notified() => {}
            () = tokio::time::sleep_until(next.map_or(reread, |next| next.min(reread))) => {}
            Some((id, followed)) = standing.next() => {
                busy.remove(&id);
                match followed {
                    Ok(()) => _ = paused.remove(&id),
                    Err(Retry::Whole) => tracing::info!(server = %link.server(), transfer = %id, "{}", Retry::Whole),
                    Err(error) => {
                        let pause = paused.get(&id).map_or(FIRST_PAUSE, |(_, last)| (*last * 2).min(LONGEST_PAUSE));
                        tracing::warn!(server = %link.server(), transfer = %id, pause_ms = pause.as_millis() as u64,
                            error = &error as &dyn std::error::Error, "a transfer is ordered again");
                        paused.insert(id, (Instant::now() + pause, pause));
                    }
                }
            }
        }
    }
}

/// Orders the transfer, waits until the node has it, and has it put in place; or ends the sync.
async fn follow(link: &Link, sync: &Sync) -> Result<(), Retry> {
    let app = &link.context.app;
    let Some(order) = order(link, sync).await? else {
        let cause =
            Cause::new("too_many_transfers", "as many copies of the container's file system are kept as there can be");
        return Ok(service::failed(app, sync, &cause).await?);
    };
    let cause = match stream::ask(&link.connection, &order, TRANSFER_DEADLINE).await {
        Ok(CommandReply::Accepted) => return Ok(service::received(app, sync).await?),
        Ok(CommandReply::Refused(cause)) => cause,
        Ok(_) => Cause::new("node_answer", "the server gave an answer to something else"),
        Err(AskError::Refused(_)) => {
            Cause::new("agent_too_old", "the server's agent does not support this: it must be upgraded")
        }
        Err(AskError::Deadline) => Cause::new("transfer_too_long", "the transfer took too long"),
        Err(error) => return Err(error.into()),
    };
    if &*cause.code == NO_BASE && sync.transfer.base.is_some() {
        service::make_whole(app, sync).await?;
        return Err(Retry::Whole);
    }
    let age = (now_ms() as i64).saturating_sub(sync.created_at);
    if TEMPORARY.contains(&&*cause.code) && age < PATIENCE.as_millis() as i64 {
        return Err(Retry::Later(cause));
    }
    tracing::warn!(server = %link.server(), transfer = %sync.transfer.id, code = %cause.code, "a sync failed");
    Ok(service::failed(app, sync, &cause).await?)
}

/// `None`: more is kept of the container than an order can name.
async fn order(link: &Link, sync: &Sync) -> Result<Option<ReceiveOrder>, StoreError> {
    let row = &sync.transfer;
    let mut keep = transfer::in_use(&link.context.app.store, row.container, MAX_KEPT + 2).await?;
    keep.retain(|other| *other != row.id);
    let origin = sync.is_local().then_some(Origin { container: row.source_container, snapshot: row.snapshot });
    let (transfer, container, base) = (row.id, row.container, row.base);
    Ok(keep.try_into().ok().map(|keep| ReceiveOrder { transfer, container, base, origin, keep }))
}
