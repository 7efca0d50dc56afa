//! Syncs of a server's containers: has the node have the transfer of each, and then the service put it in place. On every
//! wake-up the store is read anew, so that start, retry after a broken link or a restart of either side, and a missed
//! wake-up are one path. An order stands for as long as the transfer takes; a node that is ordered again goes on.

use super::{
    link::Link,
    standing::{LONGEST_PAUSE, Standing},
};
use crate::{
    error::ServiceError,
    service::container::sync as service,
    store::{
        StoreError,
        sync::{self, PATIENCE, Sync},
        transfer::{self, Transfer},
    },
};
use hoody_protocol::{
    container::Cause,
    id::TransferId,
    link::CommandReply,
    snapshot::Origin,
    stream::{self, AskError},
    time::now_ms,
    transfer::{MAX_KEPT, ReceiveOrder},
};
use std::time::Duration;

/// Orders that stand at once: as many as a node receives at once.
const MAX_STANDING: usize = 2;
/// Time for one transfer.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(12 * 3600);
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
pub(super) const NO_BASE: &str = "transfer_base_missing";

/// True where the cause is one that passes by itself.
pub(super) fn passes(cause: &Cause) -> bool {
    TEMPORARY.contains(&&*cause.code)
}

/// Why a transfer is to be ordered again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Retry {
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
    let mut standing = Standing::new();
    loop {
        match sync::waiting(&link.context.app.store, link.server()).await {
            Ok(waiting) => {
                standing.retain(|id| waiting.iter().any(|sync| sync.transfer.id == id));
                for sync in waiting {
                    let id = sync.transfer.id;
                    if standing.len() < MAX_STANDING && standing.is_free(id) {
                        standing.begin(id, async move { follow(link, &sync).await });
                    }
                }
            }
            Err(error) => {
                tracing::error!(server = %link.server(), error = &error as &dyn std::error::Error, "read syncs");
            }
        }
        match standing.next(&link.wakes.syncs).await {
            None => {}
            Some((id, Ok(()))) => standing.went_well(id),
            Some((id, Err(Retry::Whole))) => {
                tracing::info!(server = %link.server(), transfer = %id, "{}", Retry::Whole);
            }
            Some((id, Err(error))) => {
                let pause = standing.pause(id, LONGEST_PAUSE);
                tracing::warn!(server = %link.server(), transfer = %id, pause_ms = pause.as_millis() as u64,
                    error = &error as &dyn std::error::Error, "a transfer is ordered again");
            }
        }
    }
}

/// Orders the transfer, waits until the node has it, and has it put in place; or ends the sync.
async fn follow(link: &Link, sync: &Sync) -> Result<(), Retry> {
    let app = &link.context.app;
    let cause = match have(link, &sync.transfer, For::Container).await? {
        Ok(()) => return Ok(service::received(app, sync).await?),
        Err(cause) => cause,
    };
    if &*cause.code == NO_BASE && sync.transfer.base.is_some() {
        service::make_whole(app, sync).await?;
        return Err(Retry::Whole);
    }
    let age = (now_ms() as i64).saturating_sub(sync.created_at);
    if passes(&cause) && age < PATIENCE.as_millis() as i64 {
        return Err(Retry::Later(cause));
    }
    tracing::warn!(server = %link.server(), transfer = %sync.transfer.id, code = %cause.code, "a sync failed");
    Ok(service::failed(app, sync, &cause).await?)
}

/// Whose a transfer is.
#[derive(Debug, Clone)]
pub(super) enum For {
    /// A container that is there.
    Container,
    /// One that moves there: its file system and its snapshots, of which these transfers brought some, may take
    /// `room_bytes`, and while it is `held` it stands still.
    Move { room_bytes: u64, held: bool, snapshots: Vec<TransferId> },
}

/// Orders a transfer to the link's server and waits until it has it, whole; or why it cannot have it.
pub(super) async fn have(link: &Link, row: &Transfer, whose: For) -> Result<Result<(), Cause>, Retry> {
    let mut keep = transfer::in_use(link.context.app.store.reader(), row.container, MAX_KEPT + 2).await?;
    keep.retain(|other| *other != row.id);
    let Ok(keep) = keep.try_into() else { return Ok(Err(too_many())) };
    let is_local = row.source == row.target;
    let from = Origin { container: row.source_container, snapshot: row.snapshot, kept: None };
    let origin = is_local.then_some(from);
    let (transfer, container, base) = (row.id, row.container, row.base);
    let (room_bytes, held, snapshots) = match whose {
        For::Container => (None, false, Vec::new()),
        For::Move { room_bytes, held, snapshots } => (Some(room_bytes), held, snapshots),
    };
    let Ok(snapshots) = snapshots.try_into() else { return Ok(Err(too_many())) };
    let order = ReceiveOrder { transfer, container, base, origin, keep, room_bytes, held, snapshots };
    Ok(Err(match stream::ask(&link.connection, &order, TRANSFER_DEADLINE).await {
        Ok(CommandReply::Accepted) => return Ok(Ok(())),
        Ok(CommandReply::Refused(cause)) => cause,
        Ok(_) => Cause::new("node_answer", "the server gave an answer to something else"),
        Err(AskError::Refused(_)) => {
            Cause::new("agent_too_old", "the server's agent does not support this: it must be upgraded")
        }
        Err(AskError::Deadline) => Cause::new("transfer_too_long", "the transfer took too long"),
        Err(error) => return Err(error.into()),
    }))
}

/// More of a container's transfers are based on than a node keeps.
pub(super) fn too_many() -> Cause {
    Cause::new("too_many_transfers", "as many copies of the container's file system are kept as there can be")
}
