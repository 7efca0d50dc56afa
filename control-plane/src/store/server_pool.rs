//! What was last told of a server's storage pool.

use super::{Store, StoreError, server};
use crate::event::{Actor, EventKind};
use hoody_protocol::id::ServerId;
use serde_json::json;
use sqlx::{AnyConnection, Row};

/// How a storage pool fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolHealth {
    /// The highest threshold that is passed, percent; 0: none.
    pub level: i64,
    /// Errors that the kernel has counted on its devices.
    pub errors: i64,
}

/// What was told last; `None` where there is no such server.
pub async fn read(store: &Store, server: ServerId) -> Result<Option<PoolHealth>, StoreError> {
    let row = sqlx::query("SELECT pool_level, pool_errors FROM servers WHERE id = $1").bind(server.to_string());
    let row = row.fetch_optional(store.reader()).await?;
    row.map(|row| Ok(PoolHealth { level: row.try_get("pool_level")?, errors: row.try_get("pool_errors")? })).transpose()
}

/// The level of the server's pool that was told last.
pub async fn level(connection: &mut AnyConnection, server: ServerId) -> Result<i64, StoreError> {
    let found = sqlx::query_scalar("SELECT pool_level FROM servers WHERE id = $1").bind(server.to_string());
    Ok(found.fetch_optional(connection).await?.unwrap_or(0))
}

/// Tells what is new, unless somebody else has told something meanwhile. Errors that were set back are not news.
pub async fn write(
    store: &Store,
    server: ServerId,
    before: PoolHealth,
    now: PoolHealth,
    used_percent: f64,
) -> Result<(), StoreError> {
    let write = store.write(move |connection| {
        Box::pin(async move {
            let row = sqlx::query(
                "UPDATE servers SET pool_level = $2, pool_errors = $3 WHERE id = $1 AND pool_level = $4 \
                 AND pool_errors = $5 RETURNING name, owner_id, online",
            )
            .bind(server.to_string())
            .bind(now.level)
            .bind(now.errors)
            .bind(before.level)
            .bind(before.errors)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(row) = row.filter(|_| now.level != before.level || now.errors > before.errors) else {
                return Ok(());
            };
            let pool = json!({
                "level": now.level,
                "used_percent": (used_percent * 10.0).round() / 10.0,
                "device_errors": now.errors,
                "new_device_errors": (now.errors - before.errors).max(0),
            });
            let details = [("online", (row.try_get::<i64, _>("online")? != 0).into()), ("pool", pool)];
            server::record(connection, server, EventKind::ServerHealthChanged, &row, Actor::Node, &details).await
        })
    });
    write.await
}

#[cfg(test)]
#[path = "server_pool_tests.rs"]
mod tests;
