//! Moves that cannot go on. The container stays where it was, and where it was stopped for its move it is started again.

use super::steps;
use crate::{
    app::App,
    error::{ServiceError, chain},
    store::{
        container, moves,
        moves::Move,
        server::{self, Server},
    },
};
use hoody_protocol::{
    container::{Cause, Desired},
    time::now_ms,
};
use std::time::Duration;

/// How long one of the two servers may be away while the container is stopped for its move.
const AWAY_WHILE_HELD: Duration = Duration::from_secs(20);
/// How long it may be away while the container runs.
const AWAY: Duration = Duration::from_secs(15 * 60);
/// How long a container is stopped for its move at most, before it is the target's.
const HELD: Duration = Duration::from_secs(10 * 60);
/// Time for a move.
const MOVE: Duration = Duration::from_secs(24 * 3600);

/// Ends the moves that cannot go on, and those whose container is gone from its new server before it was seen there. Every
/// replica may do so: one of them wins. Where one cannot be ended, the others are.
pub(crate) async fn end(app: &App) -> Result<(), ServiceError> {
    for row in moves::before_switch(&app.store).await? {
        let ended = async {
            match reason(app, &row).await? {
                Some(cause) => steps::fail(app, &row, cause).await,
                None => Ok(()),
            }
        };
        log(&row, ended.await);
    }
    for row in moves::orphaned(&app.store).await? {
        log(&row, steps::started(app, &row).await);
    }
    Ok(())
}

fn log(row: &Move, ended: Result<(), ServiceError>) {
    if let Err(error) = ended {
        tracing::warn!(moved = %row.id, container = %row.container, error = chain(&error), "a move could not be ended");
    }
}

/// Why the move cannot go on; `None`: it can.
async fn reason(app: &App, row: &Move) -> Result<Option<Cause>, ServiceError> {
    let now = now_ms() as i64;
    let longer = |since: i64, limit: Duration| now.saturating_sub(since) > limit.as_millis() as i64;
    let owned = container::get(&app.store, row.container).await?;
    if owned.is_none_or(|owned| owned.spec.desired == Desired::Deleted) {
        return Ok(Some(steps::deleted()));
    }
    if row.held_at.is_some_and(|since| longer(since, HELD)) || longer(row.created_at, MOVE) {
        return Ok(Some(Cause::new("move_too_long", "the move took too long")));
    }
    let away = if row.state.holds() { AWAY_WHILE_HELD } else { AWAY };
    let is_away = |server: Option<Server>| {
        server.is_none_or(|server| {
            server.status != "enrolled"
                || (!server.online && longer(server.online_changed_at.unwrap_or(server.created_at), away))
        })
    };
    let Some(target) = row.target else { return Ok(None) };
    if is_away(server::by_id(&app.store, target).await?) {
        return Ok(Some(Cause::new("target_offline", "the server that the container moves to is not connected")));
    }
    if is_away(server::by_id(&app.store, row.source).await?) {
        return Ok(Some(Cause::new("source_offline", "the container's server is not connected")));
    }
    Ok(None)
}
