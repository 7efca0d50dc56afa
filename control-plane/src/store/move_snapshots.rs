//! Snapshots that move with their container. Each comes by a transfer of its own; a transfer of a move is kept for as long as
//! the move goes on, so that what is kept says which snapshots the target has.

use super::{Queries, StoreError};
use hoody_protocol::{
    id::{ContainerId, SnapshotId},
    snapshot::MovedSnapshot,
};
use sqlx::{AnyConnection, Row};

/// Transfers by which the target has snapshot `s`.
const SENT: &str = "transfers t ON t.snapshot_id = s.id AND t.container_id = s.container_id AND t.purpose = 'move' \
    AND t.state = 'kept'";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(error: E) -> StoreError {
    StoreError::Corrupt { what: "transfers.snapshot_id", source: Box::new(error) }
}

/// The oldest snapshot that can be restored and that the target does not have.
pub async fn next(connection: &mut AnyConnection, container: ContainerId) -> Result<Option<SnapshotId>, StoreError> {
    let sql = format!(
        "SELECT s.id FROM snapshots s LEFT JOIN {SENT} WHERE s.container_id = $1 AND s.state = 'ready' \
         AND t.id IS NULL ORDER BY s.created_at, s.id LIMIT 1"
    );
    let found: Option<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(container.to_string()).fetch_optional(connection).await?;
    found.map(|id| id.parse().map_err(corrupt)).transpose()
}

/// The snapshots that the target has, also those that are just being deleted; the oldest first.
pub async fn sent<'e>(queries: impl Queries<'e>, container: ContainerId) -> Result<Vec<MovedSnapshot>, StoreError> {
    let sql = format!(
        "SELECT s.id, t.id AS transfer_id FROM snapshots s JOIN {SENT} WHERE s.container_id = $1 \
         ORDER BY s.created_at, s.id"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(container.to_string()).fetch_all(queries).await?;
    let read = |row: &sqlx::any::AnyRow| {
        Ok(MovedSnapshot {
            id: row.try_get::<String, _>("id")?.parse().map_err(corrupt)?,
            transfer: row.try_get::<String, _>("transfer_id")?.parse().map_err(corrupt)?,
        })
    };
    rows.iter().map(read).collect()
}

/// True while a snapshot of the container is being taken or deleted: nobody can say yet whether there will be one.
pub async fn is_unsettled(connection: &mut AnyConnection, container: ContainerId) -> Result<bool, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM snapshots WHERE container_id = $1 AND state <> 'ready'";
    let count: i64 = sqlx::query_scalar(sql).bind(container.to_string()).fetch_one(connection).await?;
    Ok(count > 0)
}

#[cfg(test)]
#[path = "move_snapshots_tests.rs"]
mod tests;
