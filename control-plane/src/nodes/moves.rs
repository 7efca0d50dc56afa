//! Moves of containers to a link's server: has the node have what is sent of each, and then the service take the next
//! step. On every wake-up the store is read anew, so that start, retry after a broken link or a restart of either side,
//! and a missed wake-up are one path. A move without a link to its target stands still until it is ended as overdue.

use super::{
    link::Link,
    standing::{FIRST_PAUSE, LONGEST_PAUSE, Standing},
    syncs::{self, For, Retry},
};
use crate::{
    service::container::moving::steps,
    store::{
        StoreError, container, move_snapshots,
        moves::{self, Move, State},
        operation,
        snapshot::{self, SnapshotState},
        transfer,
    },
};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, SnapshotId, TransferId},
    link::CommandReply,
    snapshot::{SnapshotQuery, SnapshotReply},
    stream,
    transfer::{MAX_KEPT, RetainOrder},
};
use std::time::Duration;
use tokio::time::Instant;

/// File systems that are had at once for containers that run: one, so that a node has room for what one stands still for.
const MAX_COPYING: usize = 1;
/// Moves that are over whose rest is let go of at once.
const MAX_LETTING_GO: usize = 4;
/// How long one look waits for what the nodes report.
const REPORT_DEADLINE: Duration = Duration::from_secs(30);
/// Time for a node to say which snapshots it holds.
const SNAPSHOTS_DEADLINE: Duration = Duration::from_secs(20);
/// What is to be sent is not on its server.
const NO_SOURCE: &str = "transfer_source_missing";
/// Time for the node to delete what is not needed any more.
const RETAIN_DEADLINE: Duration = Duration::from_secs(150);

/// Takes steps until the link drops this.
pub(super) async fn run(link: &Link) {
    let mut standing = Standing::new();
    loop {
        match moves::of_link(&link.context.app.store, link.server()).await {
            Ok(found) => {
                standing.retain(|id| found.iter().any(|row| row.id == id));
                let at = |row: &Move| match (standing.is_busy(row.id), standing.is_free(row.id)) {
                    (true, _) => At::Work,
                    (_, true) => At::Rest,
                    (_, false) => At::Pause,
                };
                let seen: Vec<_> = found.iter().map(|row| (row.state, at(row))).collect();
                for (row, _) in found.into_iter().zip(due(&seen)).filter(|(_, is_due)| *is_due) {
                    standing.begin(row.id, async move { (row.state, step(link, &row).await) });
                }
            }
            Err(error) => {
                tracing::error!(server = %link.server(), error = &error as &dyn std::error::Error, "read moves");
            }
        }
        match standing.next(&link.wakes.moves).await {
            None => {}
            Some((id, (_, Ok(())))) => standing.went_well(id),
            Some((id, (_, Err(Retry::Whole)))) => {
                tracing::info!(server = %link.server(), moved = %id, "{}", Retry::Whole);
            }
            Some((id, (state, Err(error)))) => {
                // While the container stands still, the first.
                let pause = standing.pause(id, if state.holds() { FIRST_PAUSE } else { LONGEST_PAUSE });
                tracing::warn!(server = %link.server(), moved = %id, pause_ms = pause.as_millis() as u64,
                    error = &error as &dyn std::error::Error, "a step of a move is tried again");
            }
        }
    }
}

/// What is done about a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Work,
    Pause,
    Rest,
}

/// Which of the moves, the oldest first, a step is to be begun of. What a container stands still for comes first, and never
/// waits for a place; nor does what only waits for a report, however long that is.
fn due(moves: &[(State, At)]) -> Vec<bool> {
    let copies = |state: State| matches!(state, State::Copying | State::Syncing);
    let is_over = |state: State| matches!(state, State::Done | State::Failed);
    let at_work =
        |which: &dyn Fn(State) -> bool| moves.iter().filter(|(state, at)| *at == At::Work && which(*state)).count();
    let holds = moves.iter().any(|(state, _)| state.holds());
    let mut copying = if holds { 0 } else { MAX_COPYING.saturating_sub(at_work(&copies)) };
    let mut letting_go = MAX_LETTING_GO.saturating_sub(at_work(&is_over));
    let take = |places: &mut usize| {
        let is_left = *places > 0;
        *places -= usize::from(is_left);
        is_left
    };
    let is_due = |(state, at): &(State, At)| {
        *at == At::Rest
            && match *state {
                State::Stopping | State::Finishing | State::Starting => true,
                State::Copying | State::Syncing => take(&mut copying),
                State::Done | State::Failed => take(&mut letting_go),
            }
    };
    moves.iter().map(is_due).collect()
}

async fn step(link: &Link, row: &Move) -> Result<(), Retry> {
    let app = &link.context.app;
    match row.state {
        State::Copying | State::Syncing | State::Finishing => have(link, row).await,
        State::Stopping => {
            let deadline = Instant::now() + REPORT_DEADLINE;
            let stopped = app.nodes.changes.wait_for(row.container, deadline, || async {
                let found = moves::get(app.store.reader(), row.id).await?;
                let owned = container::get(&app.store, row.container).await?;
                let over = found.is_none_or(|found| found.state != State::Stopping);
                let settled =
                    owned.is_none_or(|owned| steps::is_stopped(row, &owned) || row.held != Some(owned.spec.version));
                Ok::<_, Retry>((over || settled).then_some(()))
            });
            match stopped.await? {
                Some(()) => Ok(steps::stopped(app, row).await?),
                None => Ok(()),
            }
        }
        State::Starting => {
            let deadline = Instant::now() + REPORT_DEADLINE;
            let started = app.nodes.changes.wait_for(row.container, deadline, || async {
                let owned = container::get(&app.store, row.container).await?;
                Ok::<_, Retry>(steps::is_started(owned.as_ref()).then_some(()))
            });
            match started.await? {
                Some(()) => {
                    check_snapshots(link, row.container).await?;
                    Ok(steps::started(app, row).await?)
                }
                None => Ok(()),
            }
        }
        State::Done | State::Failed => let_go(link, row).await,
    }
}

/// Has the node have what is on its way, and then the next step be taken; or ends the move.
async fn have(link: &Link, row: &Move) -> Result<(), Retry> {
    let app = &link.context.app;
    let transfer = match row.transfer {
        Some(id) => transfer::get(app.store.reader(), id).await?,
        None => None,
    };
    let owned = container::get(&app.store, row.container).await?;
    let (Some(transfer), Some(owned)) = (transfer, owned) else {
        return Ok(steps::fail(app, row, steps::deleted()).await?);
    };
    if is_gone(link, transfer.snapshot).await? {
        return Ok(steps::skip(app, row).await?);
    }
    let sent = move_snapshots::sent(app.store.reader(), row.container).await?;
    let whose = For::Move {
        room_bytes: owned.spec.received_bytes(),
        held: row.state.holds(),
        snapshots: sent.into_iter().map(|sent| sent.transfer).collect(),
    };
    match syncs::have(link, &transfer, whose).await? {
        Ok(()) => Ok(steps::arrived(app, row).await?),
        Err(cause) if &*cause.code == syncs::NO_BASE && transfer.base.is_some() => {
            steps::make_whole(app, row).await?;
            Err(Retry::Whole)
        }
        Err(cause) if syncs::passes(&cause) => Err(Retry::Later(cause)),
        // It is just being deleted, or what a snapshot has takes its place.
        Err(cause)
            if &*cause.code == NO_SOURCE
                && (operation::is_under_way(app.store.reader(), row.container).await?
                    || is_gone(link, transfer.snapshot).await?) =>
        {
            Err(Retry::Later(cause))
        }
        Err(cause) => Ok(steps::fail(app, row, cause).await?),
    }
}

/// True where there is no such snapshot any more.
async fn is_gone(link: &Link, id: Option<SnapshotId>) -> Result<bool, StoreError> {
    match id {
        Some(id) => Ok(snapshot::get(&link.context.app.store, id).await?.is_none()),
        None => Ok(false),
    }
}

/// An error where the node does not hold a snapshot that moved there with the container: what the source has of it is the
/// only one.
async fn check_snapshots(link: &Link, container: ContainerId) -> Result<(), Retry> {
    let store = &link.context.app.store;
    let Some(owned) = container::get(store, container).await? else { return Ok(()) };
    if owned.spec.snapshots.is_empty() {
        return Ok(());
    }
    let held = match stream::ask(&link.connection, &SnapshotQuery { container }, SNAPSHOTS_DEADLINE).await? {
        SnapshotReply::Held(held) => held,
        SnapshotReply::Failed(cause) => return Err(Retry::Later(cause)),
    };
    // After the answer: one that was deleted meanwhile is none.
    let there = snapshot::list(store.reader(), container).await?;
    let is_missing = |id: SnapshotId| {
        let is_ready = there.iter().any(|row| row.id == id && row.state == SnapshotState::Ready);
        is_ready && !held.iter().any(|held| held.id == id)
    };
    match owned.spec.snapshots.iter().find(|moved| is_missing(moved.id)) {
        None => Ok(()),
        Some(moved) => {
            let message = format!("snapshot {} is not on the server that its container moved to", moved.id);
            Err(Retry::Later(Cause::new("snapshot_missing", message)))
        }
    }
}

/// Has the node delete what it keeps of the move and nothing is based on.
async fn let_go(link: &Link, row: &Move) -> Result<(), Retry> {
    let (store, server) = (&link.context.app.store, link.server());
    // Where the container just moves there again, the end of that move lets go of everything.
    let again = moves::active(store.reader(), row.container).await?;
    if again.is_some_and(|again| again.target == Some(server)) {
        return cleaned(link, row).await;
    }
    let order = retain(row.container, transfer::in_use(store.reader(), row.container, MAX_KEPT + 1).await?)?;
    match stream::ask(&link.connection, &order, RETAIN_DEADLINE).await? {
        CommandReply::Refused(cause) => Err(Retry::Later(cause)),
        _ => cleaned(link, row).await,
    }
}

async fn cleaned(link: &Link, row: &Move) -> Result<(), Retry> {
    let mut tx = link.context.app.store.begin().await?;
    moves::cleaned(&mut tx, row.id, link.server()).await?;
    Ok(tx.commit().await.map_err(StoreError::from)?)
}

/// What is deleted is what the order does not name: where not all of it can be named, nothing is.
fn retain(container: ContainerId, in_use: Vec<TransferId>) -> Result<RetainOrder, Retry> {
    let keep = in_use.try_into().map_err(|_| Retry::Later(syncs::too_many()))?;
    Ok(RetainOrder { container, keep })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_stands_still_for_and_what_waits_for_a_report_take_no_place() {
        use At::{Pause, Rest, Work};
        use State::{Copying, Failed, Finishing, Starting, Stopping, Syncing};
        let of = |moves: &[(State, At)]| due(moves);
        assert_eq!(of(&[(Copying, Rest), (Copying, Rest)]), [true, false], "one at once");
        assert_eq!(of(&[(Copying, Rest), (Syncing, Work)]), [false, false]);
        assert_eq!(of(&[(Copying, Pause), (Copying, Rest)]), [false, true]);
        let stuck = [(Starting, Work); 6];
        assert!(due(&[&stuck[..], &[(Copying, Rest), (Finishing, Rest)]].concat()).ends_with(&[false, true]));
        assert!(due(&[&stuck[..], &[(Copying, Rest)]].concat()).ends_with(&[true]), "stuck ones took its place");
        // However many came before, and while another is had.
        assert_eq!(
            of(&[(Copying, Work), (Copying, Rest), (Finishing, Rest), (Stopping, Rest)]),
            [false, false, true, true]
        );
        // The place is kept for one that will be back in a moment.
        assert_eq!(of(&[(Finishing, Pause), (Copying, Rest)]), [false, false]);
        assert_eq!(of(&[(Failed, Rest); 6]).iter().filter(|due| **due).count(), MAX_LETTING_GO);
    }

    #[test]
    fn nothing_is_let_go_of_where_not_all_that_stays_can_be_named() {
        let in_use = |count: usize| (0..count).map(|_| TransferId::generate()).collect::<Vec<_>>();
        let container = ContainerId::generate();
        assert_eq!(retain(container, in_use(MAX_KEPT)).unwrap().keep.len(), MAX_KEPT);
        assert!(matches!(retain(container, in_use(MAX_KEPT + 1)), Err(Retry::Later(_))));
    }
}
