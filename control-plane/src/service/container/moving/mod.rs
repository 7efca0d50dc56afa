//! Moving a container to another server: it keeps its id, name, rules and everything else that is written down of it, and
//! gets a place and an address there. Its snapshots are copied while it runs, each as the difference from the one before it,
//! then all else that it has, then what changed meanwhile; then its server stops and holds it, what changed since is sent,
//! and one transaction makes it the target's ([`steps`]). A snapshot that is taken meanwhile is sent before what comes next.
//!
//! Until that transaction the source is in charge, and whatever goes wrong leaves it so. After it the source has a
//! tombstone only, and that is sent when the target has the container as it should be.

pub(crate) mod overdue;
pub(crate) mod steps;
mod target;
mod ties;

use super::{authorise, transfers};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        StoreError,
        container::{self, ContainerRow},
        departure, move_record, move_snapshots,
        moves::{self, Move, State},
        reservation,
        transfer::{self, Transfer},
    },
};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, ServerId, TransferId, UserId},
    time::now_ms,
};
use serde::Deserialize;
use sqlx::AnyConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A move as clients write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[schema(as = ContainerMoveInput)]
pub struct MoveInput {
    /// Where to; absent: the server that placement chooses.
    pub target_server_id: Option<String>,
}

/// Who wants a move.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The account.
    pub user: Option<UserId>,
    /// Its server is being emptied.
    pub drain: bool,
}

/// A move and how far what is on its way for it is, where this process passes it on.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The move.
    pub row: Move,
    /// Bytes that the target has taken of what is on its way, and that it will come to, about.
    pub progress: Option<(u64, Option<u64>)>,
}

/// Begins to move the container; goes on after the answer.
pub async fn start(app: &App, caller: &Caller, id: ContainerId, input: MoveInput) -> Result<Seen, ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, Level::Edit).await?;
    let target = input.target_server_id.map(|text| text.parse::<ServerId>()).transpose();
    let target = target.map_err(|error| ServiceError::invalid("target_server_id", error.to_string()))?;
    let begun = begin(app, id, target, Wanted { user: Some(caller.user), drain: false }).await;
    let begun = begun.map_err(|not| not.error)?;
    Ok(seen(app, begun).await)
}

/// The container's last move.
pub async fn last(app: &App, caller: &Caller, id: ContainerId) -> Result<Seen, ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, Level::Read).await?;
    let last = moves::last(app.store.reader(), id).await?.ok_or(ServiceError::NotFound("move"))?;
    Ok(seen(app, last).await)
}

/// The move with its progress.
pub(in crate::service) async fn seen(app: &App, row: Move) -> Seen {
    let on_its_way = row.target.zip(row.transfer).filter(|_| row.state.is_before_switch());
    let progress = match on_its_way {
        Some((target, transfer)) => app.nodes.progress(target, transfer).await,
        None => None,
    };
    Seen { row, progress: progress.map(|progress| (progress.bytes, progress.total)) }
}

/// 409 while the container is held by its move: what would be changed now could be lost.
pub(in crate::service) fn check_not_held(row: &ContainerRow) -> Result<(), ServiceError> {
    if !row.attributes.held {
        return Ok(());
    }
    Err(ServiceError::Conflict("the container is just being moved to another server: try again in a moment".to_owned()))
}

/// 409 as [`check_not_held`] says, and until the container, which is locked, was seen on its new server: nothing is copied to
/// it or from it there before it has what came with it.
pub(in crate::service) async fn check_arrived(
    connection: &mut AnyConnection,
    row: &ContainerRow,
) -> Result<(), ServiceError> {
    check_not_held(row)?;
    let going_on = moves::active(connection, row.spec.id).await?;
    if going_on.is_none_or(|going_on| going_on.state != State::Starting) {
        return Ok(());
    }
    let message =
        "the container has just moved to another server, which has not said that it is there: try again in a moment";
    Err(ServiceError::Conflict(message.to_owned()))
}

/// Why a move was not begun.
#[derive(Debug)]
pub(in crate::service) struct NotBegun {
    /// For who asked.
    pub error: ServiceError,
    /// It passes by itself.
    pub passes: bool,
}

impl From<ServiceError> for NotBegun {
    fn from(error: ServiceError) -> Self {
        let passes = matches!(error, ServiceError::Unavailable(_));
        Self { error, passes }
    }
}

impl From<StoreError> for NotBegun {
    fn from(error: StoreError) -> Self {
        ServiceError::from(error).into()
    }
}

/// Writes a move down; whoever has the right to it has asked for it.
pub(in crate::service) async fn begin(
    app: &App,
    id: ContainerId,
    target: Option<ServerId>,
    wanted: Wanted,
) -> Result<Move, NotBegun> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    let candidates = target::candidates(app, &row, target, wanted.drain).await?;
    let mut tx = app.store.begin().await?;
    let row = container::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    if let Some(tie) = ties::of(&mut tx, &row).await? {
        return Err(NotBegun { passes: ties::passes(&tie), error: ServiceError::Conflict(tie.message.to_string()) });
    }
    if moves::active(&mut *tx, id).await?.is_some() {
        let error = ServiceError::Conflict("the container is being moved already".to_owned());
        return Err(NotBegun { error, passes: true });
    }
    transfers::check_room(&mut tx, &row, None).await?;
    if !row.server_info.online {
        let message = format!("server {} is offline: nothing can be moved away from it", row.server_info.name);
        return Err(ServiceError::Unavailable(message).into());
    }
    let mut chosen = None;
    for server in candidates.into_iter().filter(|server| *server != row.server) {
        if !departure::is_open(&mut tx, server, id).await?
            && reservation::reserve(&mut tx, server, row.spec.owner, &row.spec.limits).await?
        {
            chosen = Some(server);
            break;
        }
    }
    let Some(target) = chosen else {
        let error = ServiceError::Unprocessable {
            message: "no other server can take the container just now: one that it moved away from must have deleted \
                what it held, and the others have no room left"
                .to_owned(),
            details: BTreeMap::new(),
        };
        return Err(NotBegun { error, passes: true });
    };
    let now = now_ms() as i64;
    let mut begun = Move::new(&row, Some(target), wanted.user, wanted.drain, now);
    begun.transfer = Some(send_next(&mut tx, &row, target, None, now).await?);
    moves::insert(&mut tx, &begun).await?;
    move_record::tell(&mut tx, &row, &begun, true, now).await?;
    hoody_fault::point!("move.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("move.committed");
    app.nodes.wake_for_moves(target);
    app.nodes.changes.announce(id);
    Ok(begun)
}

/// Writes down that a container of a server that is being emptied cannot be moved; not where it is being moved after all.
pub(in crate::service) async fn refuse(
    app: &App,
    id: ContainerId,
    wanted: Wanted,
    why: &ServiceError,
) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let Some(row) = container::lock(&mut tx, id).await? else { return Ok(()) };
    if moves::active(&mut *tx, id).await?.is_some() {
        return Ok(());
    }
    let now = now_ms() as i64;
    let refused = Move {
        state: State::Failed,
        failure: Some(Cause::new("cannot_be_moved", why.to_string())),
        source_clean: true,
        target_clean: true,
        ended_at: Some(now),
        ..Move::new(&row, None, wanted.user, wanted.drain, now)
    };
    moves::insert(&mut tx, &refused).await?;
    move_record::tell(&mut tx, &row, &refused, false, now).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.nodes.changes.announce(id);
    Ok(())
}

/// Writes down what is sent next, as the difference from `base`: the oldest snapshot that the target does not have, or,
/// where it has all of them, the container's file system.
async fn send_next(
    connection: &mut AnyConnection,
    row: &ContainerRow,
    target: ServerId,
    base: Option<TransferId>,
    now: i64,
) -> Result<TransferId, StoreError> {
    let (id, container) = (TransferId::generate(), row.spec.id);
    let snapshot = move_snapshots::next(&mut *connection, container).await?;
    let next = Transfer { id, container, target, source_container: container, source: row.server, snapshot, base };
    transfer::insert(&mut *connection, &next, now).await?;
    moves::mark_transfer(connection, id).await?;
    Ok(id)
}
