//! What happened to an account's protection: logins, and changes of password and second factor.

use super::{Store, StoreError};
use crate::page::Page;
use hoody_protocol::{
    id::{RequestId, UserId},
    time::now_ms,
};
use sqlx::AnyConnection;

/// An event to be written down.
#[derive(Debug, Clone, Copy)]
pub struct NewSecurityEvent<'a> {
    /// The account.
    pub user: UserId,
    /// A word for what happened.
    pub event: &'a str,
    /// A login; else a change.
    pub is_login: bool,
    /// It succeeded.
    pub succeeded: bool,
    /// Where it came from.
    pub ip_address: &'a str,
    /// What the client calls itself.
    pub client: Option<&'a str>,
}

/// An event.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// A word for what happened.
    pub event: String,
    /// 1: it succeeded.
    pub succeeded: i64,
    /// Where it came from.
    pub ip_address: String,
    /// What the client calls itself.
    pub client: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

/// Which events are asked for, besides successful logins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Those that failed.
    pub failed: bool,
    /// Changes of what protects the account.
    pub changes: bool,
}

const FILTERED: &str =
    "FROM security_events WHERE user_id = $1 AND (succeeded = 1 OR $2 = 1) AND (is_login = 1 OR $3 = 1)";

/// Writes an event down; gives its id.
pub async fn insert(connection: &mut AnyConnection, event: &NewSecurityEvent<'_>) -> Result<RequestId, StoreError> {
    let id = RequestId::generate();
    sqlx::query(
        "INSERT INTO security_events (id, user_id, event, is_login, succeeded, ip_address, client, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id.to_string())
    .bind(event.user.to_string())
    .bind(event.event)
    .bind(i64::from(event.is_login))
    .bind(i64::from(event.succeeded))
    .bind(event.ip_address)
    .bind(event.client)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(id)
}

/// One page of an account's events, newest first, and how many there are.
pub async fn list(store: &Store, user: UserId, filter: Filter, page: Page) -> Result<(Vec<Event>, u64), StoreError> {
    let (failed, changes) = (i64::from(filter.failed), i64::from(filter.changes));
    let total: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT CAST(COUNT(*) AS BIGINT) {FILTERED}")))
        .bind(user.to_string())
        .bind(failed)
        .bind(changes)
        .fetch_one(store.reader())
        .await?;
    let sql = format!(
        "SELECT id, event, succeeded, ip_address, client, created_at {FILTERED} \
         ORDER BY created_at DESC, id DESC LIMIT $4 OFFSET $5"
    );
    let events = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(user.to_string())
        .bind(failed)
        .bind(changes)
        .bind(page.limit as i64)
        .bind(page.offset() as i64)
        .fetch_all(store.reader())
        .await?;
    Ok((events, total as u64))
}

/// Forgets what is older than `before` (milliseconds).
pub async fn purge(store: &Store, before: i64) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM security_events WHERE created_at < $1").bind(before).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}
