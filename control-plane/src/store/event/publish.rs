//! The one order of delivery. [`publish`] may run in every replica at the same time: whoever has the row of
//! the last sequence locked publishes, the others wait for it.

use super::{COLUMNS, read};
use crate::{
    event::Event,
    store::{Backend, Store, StoreError},
};
use sqlx::AssertSqlSafe;

/// PostgreSQL's channel that tells the other replicas that there is something new.
pub const PUBLISHED_CHANNEL: &str = "hoody_events";

/// Gives at most `limit` committed events their place in the order; how many it were.
pub async fn publish(store: &Store, limit: u32) -> Result<u64, StoreError> {
    // Most wake-ups are about something else: those cost one look at an index that is empty.
    let waiting: Option<i64> = sqlx::query_scalar("SELECT position FROM events WHERE sequence IS NULL LIMIT 1")
        .fetch_optional(store.reader())
        .await?;
    if waiting.is_none() {
        return Ok(0);
    }
    let mut tx = store.begin().await?;
    let last: i64 = sqlx::query_scalar("UPDATE event_sequence SET value = value WHERE id = 1 RETURNING value")
        .fetch_one(&mut *tx)
        .await?;
    let published = sqlx::query(
        "UPDATE events SET sequence = $1 + place FROM (SELECT id AS fresh_id, \
         ROW_NUMBER() OVER (ORDER BY position, id) AS place FROM events WHERE sequence IS NULL \
         ORDER BY position, id LIMIT $2) AS fresh WHERE events.id = fresh.fresh_id",
    )
    .bind(last)
    .bind(i64::from(limit))
    .execute(&mut *tx)
    .await?
    .rows_affected();
    sqlx::query("UPDATE event_sequence SET value = $1 WHERE id = 1")
        .bind(last + published as i64)
        .execute(&mut *tx)
        .await?;
    if published > 0 && store.backend() == Backend::Postgres {
        // Delivered with the commit, and only then. (Its result is none that the driver can decode.)
        sqlx::query("SELECT CAST(pg_notify($1, '') AS TEXT)").bind(PUBLISHED_CHANNEL).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(published)
}

/// The last sequence that was given out.
pub async fn last_sequence(store: &Store) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT value FROM event_sequence WHERE id = 1").fetch_one(store.reader()).await?)
}

/// Where a listener can resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Up to here retention has removed events.
    pub removed_until: i64,
    /// The last sequence that was given out.
    pub last: i64,
}

/// Where a listener can resume now.
pub async fn bounds(store: &Store) -> Result<Bounds, StoreError> {
    let (removed_until, last) = sqlx::query_as("SELECT removed_until, value FROM event_sequence WHERE id = 1")
        .fetch_one(store.reader())
        .await?;
    Ok(Bounds { removed_until, last })
}

/// At most `limit` published events behind `sequence`, in order.
pub async fn after(store: &Store, sequence: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM events WHERE sequence > $1 ORDER BY sequence LIMIT $2");
    sqlx::query(AssertSqlSafe(sql))
        .bind(sequence)
        .bind(i64::from(limit))
        .fetch_all(store.reader())
        .await?
        .iter()
        .map(read)
        .collect()
}
