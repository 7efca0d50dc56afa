//! Invite codes: each opens the free tier a number of times.

use super::{Store, StoreError};
use hoody_protocol::{id::RequestId, time::now_ms};
use sqlx::AnyConnection;

/// An invite code, without the code.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct InviteCode {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub note: String,
    /// How often it may be used.
    pub max_uses: i64,
    /// How often it was.
    pub uses: i64,
    /// Milliseconds since the epoch; `None`: for ever.
    pub expires_at: Option<i64>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

const COLUMNS: &str = "id, note, max_uses, uses, expires_at, created_at";

/// Stores a code by its hash.
pub async fn insert(
    store: &Store,
    code_hash: &str,
    note: &str,
    max_uses: i64,
    expires_at: Option<i64>,
) -> Result<InviteCode, StoreError> {
    let mut tx = store.begin().await?;
    let sql = format!(
        "INSERT INTO invite_codes (id, code_hash, note, max_uses, expires_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING {COLUMNS}"
    );
    let made = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(RequestId::generate().to_string())
        .bind(code_hash)
        .bind(note)
        .bind(max_uses)
        .bind(expires_at)
        .bind(now_ms() as i64)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(made)
}

/// Uses a code once; false where there is none, or it is used up or has expired.
pub async fn redeem(connection: &mut AnyConnection, code_hash: &str) -> Result<bool, StoreError> {
    let redeemed = sqlx::query(
        "UPDATE invite_codes SET uses = uses + 1 WHERE code_hash = $1 AND uses < max_uses \
         AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(code_hash)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(redeemed.rows_affected() == 1)
}

/// All codes, newest first.
pub async fn list(store: &Store) -> Result<Vec<InviteCode>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM invite_codes ORDER BY created_at DESC, id DESC");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(store.reader()).await?)
}

/// Deletes a code; what it opened stays open.
pub async fn delete(store: &Store, id: &str) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let deleted = sqlx::query("DELETE FROM invite_codes WHERE id = $1").bind(id).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(deleted.rows_affected() == 1)
}
