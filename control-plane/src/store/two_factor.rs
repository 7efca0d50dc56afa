//! Second factors: the TOTP secret, backup codes, and logins that wait for one of them.

use super::{Store, StoreError};
use hoody_protocol::{id::UserId, time::now_ms};
use sqlx::{AnyConnection, Row as _};

/// An account's second factor.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Row {
    /// The secret, sealed.
    pub sealed: String,
    /// Since when it is in force, milliseconds; `None`: not yet.
    pub enabled_at: Option<i64>,
    /// 1: auth tokens are only made and changed with a code.
    pub require_for_tokens: i64,
}

/// The account's second factor, in force or not.
pub async fn get(store: &Store, user: UserId) -> Result<Option<Row>, StoreError> {
    Ok(sqlx::query_as("SELECT sealed, enabled_at, require_for_tokens FROM two_factor WHERE user_id = $1")
        .bind(user.to_string())
        .fetch_optional(store.reader())
        .await?)
}

/// Stores a secret that is not in force yet, in place of another one that is not. False where one is in force.
pub async fn set_up(connection: &mut AnyConnection, user: UserId, sealed: &str) -> Result<bool, StoreError> {
    let stored = sqlx::query(
        "INSERT INTO two_factor (user_id, sealed, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id) DO UPDATE SET sealed = $2, created_at = $3, last_step = 0 \
         WHERE two_factor.enabled_at IS NULL",
    )
    .bind(user.to_string())
    .bind(sealed)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(stored.rows_affected() == 1)
}

/// Puts `sealed` in force; false where it already is, or another secret has taken its place.
pub async fn enable(connection: &mut AnyConnection, user: UserId, sealed: &str, now: i64) -> Result<bool, StoreError> {
    let enabled =
        sqlx::query("UPDATE two_factor SET enabled_at = $3 WHERE user_id = $1 AND sealed = $2 AND enabled_at IS NULL")
            .bind(user.to_string())
            .bind(sealed)
            .bind(now)
            .execute(connection)
            .await?;
    Ok(enabled.rows_affected() == 1)
}

/// Removes the second factor with its backup codes and waiting logins.
pub async fn delete(connection: &mut AnyConnection, user: UserId) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM two_factor WHERE user_id = $1",
        "DELETE FROM backup_codes WHERE user_id = $1",
        "DELETE FROM login_challenges WHERE user_id = $1",
    ] {
        sqlx::query(sql).bind(user.to_string()).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Sets whether auth tokens need a code; false where no second factor is in force.
pub async fn set_token_gate(connection: &mut AnyConnection, user: UserId, enabled: bool) -> Result<bool, StoreError> {
    let set =
        sqlx::query("UPDATE two_factor SET require_for_tokens = $2 WHERE user_id = $1 AND enabled_at IS NOT NULL")
            .bind(user.to_string())
            .bind(i64::from(enabled))
            .execute(connection)
            .await?;
    Ok(set.rows_affected() == 1)
}

/// Uses the code of a step: true for the first who does, and only where no later one was used.
pub async fn use_step(connection: &mut AnyConnection, user: UserId, step: i64) -> Result<bool, StoreError> {
    let used = sqlx::query("UPDATE two_factor SET last_step = $2 WHERE user_id = $1 AND last_step < $2")
        .bind(user.to_string())
        .bind(step)
        .execute(connection)
        .await?;
    Ok(used.rows_affected() == 1)
}

/// Replaces the backup codes by those with these hashes.
pub async fn replace_backup_codes(
    connection: &mut AnyConnection,
    user: UserId,
    hashes: &[String],
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM backup_codes WHERE user_id = $1").bind(user.to_string()).execute(&mut *connection).await?;
    for hash in hashes {
        sqlx::query("INSERT INTO backup_codes (user_id, code_hash) VALUES ($1, $2)")
            .bind(user.to_string())
            .bind(hash)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Uses a backup code: true for the first who does.
pub async fn use_backup_code(connection: &mut AnyConnection, user: UserId, hash: &str) -> Result<bool, StoreError> {
    let used = sqlx::query("DELETE FROM backup_codes WHERE user_id = $1 AND code_hash = $2")
        .bind(user.to_string())
        .bind(hash)
        .execute(connection)
        .await?;
    Ok(used.rows_affected() == 1)
}

/// Backup codes that are left.
pub async fn backup_codes(store: &Store, user: UserId) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM backup_codes WHERE user_id = $1")
        .bind(user.to_string())
        .fetch_one(store.reader())
        .await?)
}

/// Stores a login that waits for its second factor.
pub async fn insert_challenge(
    connection: &mut AnyConnection,
    token_hash: &str,
    waiting: &Waiting,
    expires_at: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO login_challenges (token_hash, user_id, device_id, code_challenge, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(token_hash)
    .bind(waiting.user.to_string())
    .bind(waiting.device.as_deref())
    .bind(waiting.code_challenge.as_deref())
    .bind(expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// A login that waits for its code.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Whose it is.
    pub user: UserId,
    /// The device that it lets in.
    pub device: Option<String>,
    /// It becomes an intent with this challenge.
    pub code_challenge: Option<String>,
}

/// Counts a try at the login; gives it, unless there is no such login, it has expired, or it was tried
/// `max_tries` times already.
pub async fn try_challenge(store: &Store, token_hash: &str, max_tries: i64) -> Result<Option<Waiting>, StoreError> {
    let mut tx = store.begin().await?;
    let row = sqlx::query(
        "UPDATE login_challenges SET tries = tries + 1 WHERE token_hash = $1 AND expires_at > $2 AND tries < $3 \
         RETURNING user_id, device_id, code_challenge",
    )
    .bind(token_hash)
    .bind(now_ms() as i64)
    .bind(max_tries)
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    let Some(row) = row else { return Ok(None) };
    let user: String = row.try_get("user_id")?;
    let user = user.parse();
    Ok(Some(Waiting {
        user: user
            .map_err(|error| StoreError::Corrupt { what: "login_challenges.user_id", source: Box::new(error) })?,
        device: row.try_get("device_id")?,
        code_challenge: row.try_get("code_challenge")?,
    }))
}

/// Ends the login that waits; true for the first who does.
pub async fn take_challenge(connection: &mut AnyConnection, token_hash: &str) -> Result<bool, StoreError> {
    let taken =
        sqlx::query("DELETE FROM login_challenges WHERE token_hash = $1").bind(token_hash).execute(connection).await?;
    Ok(taken.rows_affected() == 1)
}

/// Forgets logins that nobody ended.
pub async fn purge(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM login_challenges WHERE expires_at <= $1").bind(now_ms() as i64).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}
