//! Answers to requests with an `Idempotency-Key`.

use super::{Store, StoreError};
use hoody_protocol::{id::UserId, time::now_ms};
use sqlx::Row;
use std::time::Duration;

/// How long an answer is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known about a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: the request is to be worked on, and [`finish`] or [`forget`] called.
    First,
    /// It was used for another request.
    OtherRequest,
    /// The first request is still being worked on.
    Running,
    /// The answer.
    Done {
        /// HTTP status.
        status: u16,
        /// The sealed body.
        sealed: String,
    },
}

/// Claims a key for a request. A claim older than `abandoned` without an answer counts for nothing.
pub async fn begin(
    store: &Store,
    user: UserId,
    key: &str,
    request_hash: &str,
    abandoned: Duration,
) -> Result<Begun, StoreError> {
    let now = now_ms() as i64;
    let mut tx = store.begin().await?;
    sqlx::query(
        "DELETE FROM idempotency_keys WHERE user_id = $1 AND (created_at < $2 OR (status IS NULL AND created_at < $3))",
    )
    .bind(user.to_string())
    .bind(now - KEPT.as_millis() as i64)
    .bind(now - abandoned.as_millis() as i64)
    .execute(&mut *tx)
    .await?;
    let inserted = sqlx::query(
        "INSERT INTO idempotency_keys (user_id, key, request_hash, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id, key) DO NOTHING",
    )
    .bind(user.to_string())
    .bind(key)
    .bind(request_hash)
    .bind(now)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if inserted == 1 {
        tx.commit().await?;
        return Ok(Begun::First);
    }
    let row = sqlx::query("SELECT request_hash, status, body FROM idempotency_keys WHERE user_id = $1 AND key = $2")
        .bind(user.to_string())
        .bind(key)
        .fetch_optional(&mut *tx)
        .await?;
    tx.commit().await?;
    // Freed between the two statements: as good as still running, the client tries again.
    let Some(row) = row else { return Ok(Begun::Running) };
    if row.try_get::<String, _>("request_hash")? != request_hash {
        return Ok(Begun::OtherRequest);
    }
    let status: Option<i64> = row.try_get("status")?;
    let body: Option<String> = row.try_get("body")?;
    Ok(match (status.and_then(|status| u16::try_from(status).ok()), body) {
        (Some(status), Some(sealed)) => Begun::Done { status, sealed },
        _ => Begun::Running,
    })
}

/// Stores the answer.
pub async fn finish(store: &Store, user: UserId, key: &str, status: u16, sealed: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("UPDATE idempotency_keys SET status = $3, body = $4 WHERE user_id = $1 AND key = $2")
        .bind(user.to_string())
        .bind(key)
        .bind(i64::from(status))
        .bind(sealed)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// Frees the key of a request that came to nothing.
pub async fn forget(store: &Store, user: UserId, key: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2 AND status IS NULL")
        .bind(user.to_string())
        .bind(key)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}
