//! Stored keys, sealed.

use super::{Store, StoreError};
use hoody_protocol::{id::RequestId, time::now_ms};

/// A stored key.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// The part stored in the clear.
    pub public: String,
    /// The sealed part.
    pub sealed: String,
}

/// An id for a new key.
pub fn new_id() -> String {
    // Keys share the id form of every resource, but nothing refers to them by a type.
    RequestId::generate().to_string()
}

/// The active key of a purpose.
pub async fn active(store: &Store, purpose: &str) -> Result<Option<Row>, StoreError> {
    Ok(sqlx::query_as("SELECT id, public, sealed FROM keys WHERE purpose = $1 AND retired_at IS NULL")
        .bind(purpose)
        .fetch_optional(store.reader())
        .await?)
}

/// The id of the active key of a purpose.
pub async fn active_id(store: &Store, purpose: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT id FROM keys WHERE purpose = $1 AND retired_at IS NULL")
        .bind(purpose)
        .fetch_optional(store.reader())
        .await?)
}

/// Puts `row` in the place of the active key of `purpose`, and retires the key `from` that it was made from,
/// all at once; the retired ones' secrets are forgotten. False where another process did it already.
pub async fn promote(
    store: &Store,
    from_purpose: &str,
    from: &str,
    purpose: &str,
    row: Row,
) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let now = now_ms() as i64;
    let retired = sqlx::query(
        "UPDATE keys SET retired_at = $3, sealed = '' WHERE purpose = $1 AND id = $2 AND retired_at IS NULL",
    )
    .bind(from_purpose)
    .bind(from)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    if retired.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("UPDATE keys SET retired_at = $2, sealed = '' WHERE purpose = $1 AND retired_at IS NULL")
        .bind(purpose)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO keys (id, purpose, public, sealed, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(row.id)
        .bind(purpose)
        .bind(row.public)
        .bind(row.sealed)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// Inserts the key unless the purpose has an active one already; gives the one that is active then.
pub async fn insert_or_active(store: &Store, purpose: &str, row: Row) -> Result<Row, StoreError> {
    let mut tx = store.begin().await?;
    let inserted = sqlx::query(
        "INSERT INTO keys (id, purpose, public, sealed, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (purpose) WHERE retired_at IS NULL DO NOTHING",
    )
    .bind(&row.id)
    .bind(purpose)
    .bind(&row.public)
    .bind(&row.sealed)
    .bind(now_ms() as i64)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    let found = if inserted == 1 {
        row
    } else {
        sqlx::query_as("SELECT id, public, sealed FROM keys WHERE purpose = $1 AND retired_at IS NULL")
            .bind(purpose)
            .fetch_one(&mut *tx)
            .await?
    };
    tx.commit().await?;
    Ok(found)
}

/// A key with its times.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Dated {
    /// Its id.
    pub id: String,
    /// The part stored in the clear.
    pub public: String,
    /// The sealed part.
    pub sealed: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

/// Every key of a purpose that was not retired before `since` (milliseconds), newest first.
pub async fn usable(store: &Store, purpose: &str, since: i64) -> Result<Vec<Dated>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT id, public, sealed, created_at FROM keys WHERE purpose = $1 AND \
         (retired_at IS NULL OR retired_at > $2) ORDER BY created_at DESC, id DESC",
    )
    .bind(purpose)
    .bind(since)
    .fetch_all(store.reader())
    .await?)
}

/// Retires the active key of a purpose and makes this one active. With `revoke` every older one counts as
/// retired since ever.
pub async fn rotate(store: &Store, purpose: &str, row: &Row, revoke: bool) -> Result<(), StoreError> {
    let now = now_ms() as i64;
    let mut tx = store.begin().await?;
    sqlx::query("UPDATE keys SET retired_at = $2 WHERE purpose = $1 AND retired_at IS NULL")
        .bind(purpose)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    if revoke {
        sqlx::query("UPDATE keys SET retired_at = 0 WHERE purpose = $1").bind(purpose).execute(&mut *tx).await?;
    }
    sqlx::query("INSERT INTO keys (id, purpose, public, sealed, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(&row.id)
        .bind(purpose)
        .bind(&row.public)
        .bind(&row.sealed)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}
