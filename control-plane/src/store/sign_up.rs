//! Sign-ups that wait for their mail to be answered.

use super::{Store, StoreError};
use hoody_protocol::{id::RequestId, time::now_ms};
use sqlx::AnyConnection;

/// A sign-up.
#[derive(Clone, sqlx::FromRow)]
pub struct SignUp {
    /// Its id.
    pub id: String,
    /// Where its mail goes, lower case.
    pub email: String,
    /// The name wished for, lower case.
    pub username: String,
    /// PHC string.
    pub password_hash: String,
    /// Region of the free server wished for.
    pub region: Option<String>,
    /// Hash of the invite code sent along.
    pub invite_hash: Option<String>,
    /// Where it came from.
    pub ip_address: String,
}

impl std::fmt::Debug for SignUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignUp").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An id for a new sign-up.
pub fn new_id() -> String {
    RequestId::generate().to_string()
}

/// Stores a sign-up until `expires_at`.
pub async fn insert(connection: &mut AnyConnection, sign_up: &SignUp, expires_at: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sign_ups (id, email, username, password_hash, region, invite_hash, created_at, expires_at, \
         ip_address) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&sign_up.id)
    .bind(&sign_up.email)
    .bind(&sign_up.username)
    .bind(&sign_up.password_hash)
    .bind(sign_up.region.as_deref())
    .bind(sign_up.invite_hash.as_deref())
    .bind(now_ms() as i64)
    .bind(expires_at)
    .bind(&sign_up.ip_address)
    .execute(connection)
    .await?;
    Ok(())
}

/// Sign-ups of an address that still wait.
pub async fn waiting(store: &Store, email: &str) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM sign_ups WHERE email = $1 AND expires_at > $2")
        .bind(email)
        .bind(now_ms() as i64)
        .fetch_one(store.reader())
        .await?)
}

/// The newest sign-up of an address that still waits.
pub async fn newest(store: &Store, email: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM sign_ups WHERE email = $1 AND expires_at > $2 ORDER BY created_at DESC, id DESC LIMIT 1",
    )
    .bind(email)
    .bind(now_ms() as i64)
    .fetch_optional(store.reader())
    .await?)
}

/// Where a sign-up came from, and when, milliseconds; `None` where it is gone.
pub async fn source(store: &Store, id: &str) -> Result<Option<(String, i64)>, StoreError> {
    Ok(sqlx::query_as("SELECT ip_address, created_at FROM sign_ups WHERE id = $1")
        .bind(id)
        .fetch_optional(store.reader())
        .await?)
}

/// Takes the sign-up of a token: it and every other of its address are gone then. `None` where the token is
/// not known, was used or has expired.
pub async fn take(connection: &mut AnyConnection, token_hash: &str) -> Result<Option<SignUp>, StoreError> {
    let now = now_ms() as i64;
    let taken: Option<String> = sqlx::query_scalar(
        "DELETE FROM mail_tokens WHERE token_hash = $1 AND sign_up_id IS NOT NULL AND expires_at > $2 \
         RETURNING sign_up_id",
    )
    .bind(token_hash)
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(id) = taken else { return Ok(None) };
    let found: Option<SignUp> = sqlx::query_as(
        "SELECT id, email, username, password_hash, region, invite_hash, ip_address FROM sign_ups \
         WHERE id = $1 AND expires_at > $2",
    )
    .bind(id)
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(sign_up) = &found {
        sqlx::query("DELETE FROM sign_ups WHERE email = $1").bind(&sign_up.email).execute(connection).await?;
    }
    Ok(found)
}

/// Forgets sign-ups that were never answered.
pub async fn purge(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM sign_ups WHERE expires_at <= $1").bind(now_ms() as i64).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}
