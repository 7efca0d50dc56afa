//! How often a command may run on a server. Counted in the transaction that adds a run, with the server's row
//! locked, so that of two requests at the same time one is refused.

use crate::{
    error::ServiceError,
    store::command::{Command, execution},
};
use hoody_protocol::id::ServerId;
use sqlx::AnyConnection;

/// Executions of one server that are not over.
const MAX_OPEN: i64 = 16;
/// Seconds until something of a full server may be over.
const OPEN_RETRY_S: u64 = 5;
const SECOND_MS: i64 = 1000;
const HOUR_MS: i64 = 3600 * SECOND_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Ok where the command may run once more at `now`.
pub(super) async fn check(
    connection: &mut AnyConnection,
    command: &Command,
    server: ServerId,
    now: i64,
) -> Result<(), ServiceError> {
    if execution::count_open(connection, server).await? >= MAX_OPEN {
        return Err(ServiceError::RateLimited { retry_after_s: OPEN_RETRY_S });
    }
    let limits = [
        (command.cooldown_s.map(|_| 1), command.cooldown_s.unwrap_or(0).saturating_mul(SECOND_MS)),
        (command.per_hour, HOUR_MS),
        (command.per_day, DAY_MS),
    ];
    let mut wait = 0;
    for (most, window) in limits {
        let Some(most) = most else { continue };
        let runs = execution::times(connection, command.id, server, now - window, most.max(0)).await?;
        if runs.len() as i64 >= most {
            // The oldest of the newest `most` runs is the one that must leave the window; 0 allows none ever.
            let oldest = runs.first().copied().unwrap_or(now);
            // It may be of a moment later: requests wait for one another.
            wait = wait.max((oldest + window - now).min(window));
        }
    }
    if wait > 0 {
        return Err(ServiceError::RateLimited { retry_after_s: (wait as u64).div_ceil(SECOND_MS as u64) });
    }
    Ok(())
}
