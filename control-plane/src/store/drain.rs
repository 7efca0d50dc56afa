//! Servers that are being emptied.

use super::{Store, StoreError, server};
use crate::event::{Actor, EventKind};
use hoody_protocol::id::{ContainerId, ServerId, UserId};
use serde_json::json;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// Why containers cannot be moved away just now.
pub type Waiting = BTreeMap<ContainerId, String>;

/// That a server is being emptied, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// The server.
    pub server: ServerId,
    /// Since when.
    pub started_at: i64,
    /// When it was stopped; `None`: it goes on.
    pub stopped_at: Option<i64>,
    /// Who asked.
    pub user: Option<UserId>,
    /// What could not be moved when that was tried last, and is tried again.
    pub waiting: Waiting,
}

const COLUMNS: &str = "id, drain_started_at, drain_stopped_at, drain_user_id, drain_waiting";

fn read(row: &sqlx::any::AnyRow) -> Result<Option<Drain>, StoreError> {
    let Some(started_at) = row.try_get("drain_started_at")? else { return Ok(None) };
    let id: String = row.try_get("id")?;
    let user: Option<String> = row.try_get("drain_user_id")?;
    let waiting: Option<String> = row.try_get("drain_waiting")?;
    let corrupt = |error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) };
    let not_waiting = |error| StoreError::Corrupt { what: "servers.drain_waiting", source: Box::new(error) };
    Ok(Some(Drain {
        server: id.parse().map_err(corrupt)?,
        waiting: waiting.as_deref().map(serde_json::from_str).transpose().map_err(not_waiting)?.unwrap_or_default(),
        started_at,
        stopped_at: row.try_get("drain_stopped_at")?,
        user: user.and_then(|user| user.parse().ok()),
    }))
}

/// Whether the server is being emptied, or was last; `None`: it never was.
pub async fn of(store: &Store, server: ServerId) -> Result<Option<Drain>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM servers WHERE id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(server.to_string()).fetch_optional(store.reader()).await?;
    Ok(row.as_ref().map(read).transpose()?.flatten())
}

/// The servers that are being emptied.
pub async fn going_on(store: &Store) -> Result<Vec<Drain>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM servers WHERE drain_started_at IS NOT NULL AND drain_stopped_at IS NULL ORDER BY id"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(store.reader()).await?;
    Ok(rows.iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Begins to empty the server, or begins again: what could not be moved is tried once more. False where there is none.
pub async fn start(connection: &mut AnyConnection, id: ServerId, user: UserId, now: i64) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "UPDATE servers SET drain_started_at = $2, drain_stopped_at = NULL, drain_waiting = NULL, drain_user_id = $3, \
         updated_at = $2 WHERE id = $1 RETURNING name, owner_id",
    )
    .bind(id.to_string())
    .bind(now)
    .bind(user.to_string())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let told = [("drain", json!("started"))];
    server::record(connection, id, EventKind::ServerUpdated, &row, Actor::User(user), &told).await?;
    Ok(true)
}

/// Begins no move any more, and lets the server take containers again; false where it was not being emptied.
pub async fn stop(connection: &mut AnyConnection, id: ServerId, user: UserId, now: i64) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "UPDATE servers SET drain_stopped_at = $2, drain_waiting = NULL, updated_at = $2 WHERE id = $1 AND drain_started_at IS NOT NULL \
         AND drain_stopped_at IS NULL RETURNING name, owner_id",
    )
    .bind(id.to_string())
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let told = [("drain", json!("stopped"))];
    server::record(connection, id, EventKind::ServerUpdated, &row, Actor::User(user), &told).await?;
    Ok(true)
}

/// Writes down what cannot be moved just now, where the server is still being emptied since then.
pub async fn set_waiting(store: &Store, drain: &Drain, waiting: &Waiting) -> Result<(), StoreError> {
    let corrupt = |error| StoreError::Corrupt { what: "servers.drain_waiting", source: Box::new(error) };
    let text = Some(waiting).filter(|waiting| !waiting.is_empty()).map(serde_json::to_string).transpose();
    let (text, server, since) = (text.map_err(corrupt)?, drain.server.to_string(), drain.started_at);
    let write = store.write(move |connection| {
        Box::pin(async move {
            sqlx::query(
                "UPDATE servers SET drain_waiting = $3 WHERE id = $1 AND drain_started_at = $2 \
                 AND drain_stopped_at IS NULL",
            )
            .bind(server)
            .bind(since)
            .bind(text)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    write.await
}

/// Containers of the server that no move was begun for since that time, the oldest first.
pub async fn untried(store: &Store, server: ServerId, since: i64) -> Result<Vec<ContainerId>, StoreError> {
    let sql = "SELECT id FROM containers WHERE server_id = $1 AND deleted_at IS NULL AND NOT EXISTS \
        (SELECT 1 FROM moves WHERE moves.container_id = containers.id AND moves.source_server_id = $1 \
        AND (moves.created_at >= $2 OR moves.ended_at IS NULL)) ORDER BY created_at, id";
    let found: Vec<String> =
        sqlx::query_scalar(sql).bind(server.to_string()).bind(since).fetch_all(store.reader()).await?;
    let corrupt = |error| StoreError::Corrupt { what: "containers.id", source: Box::new(error) };
    found.into_iter().map(|id| id.parse().map_err(corrupt)).collect()
}

/// Containers that are not on the server any more, and of which it still holds something.
pub async fn held(store: &Store, server: ServerId) -> Result<i64, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM (SELECT container_id FROM departures WHERE server_id = $1 UNION \
        SELECT container_id FROM moves WHERE source_server_id = $1 AND ended_at IS NULL AND state = 'starting') AS held";
    Ok(sqlx::query_scalar(sql).bind(server.to_string()).fetch_one(store.reader()).await?)
}

/// Containers that are on the server, those that are being deleted left out.
pub async fn remaining(store: &Store, server: ServerId) -> Result<i64, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM containers WHERE server_id = $1 AND deleted_at IS NULL";
    Ok(sqlx::query_scalar(sql).bind(server.to_string()).fetch_one(store.reader()).await?)
}
