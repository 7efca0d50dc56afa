//! Join tokens: single use, hashed. A token binds to the first key that enrols with it; that key may ask
//! again until its first hello, which spends the token.

use super::{Store, StoreError, node::ServerStatus, server::record};
use crate::event::{Actor, EventKind};
use hoody_protocol::{
    id::{JoinTokenId, ServerId},
    transport::PublicKey,
};
use sqlx::{AnyConnection, Row};

/// Why a token does not enrol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// There is no such token.
    Unknown,
    /// It is older than its validity.
    Expired,
    /// Another key enrolled with it, or its node has said hello.
    Used,
    /// The server was disabled or revoked.
    ShutOut,
    /// The key is the identity of another server.
    WrongKey,
}

/// Stores a token's hash.
pub async fn insert(
    connection: &mut AnyConnection,
    server: ServerId,
    secret_hash: &str,
    now: i64,
    expires_at: i64,
) -> Result<JoinTokenId, StoreError> {
    let id = JoinTokenId::generate();
    sqlx::query(
        "INSERT INTO join_tokens (id, server_id, secret_hash, expires_at, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id.to_string())
    .bind(server.to_string())
    .bind(secret_hash.to_owned())
    .bind(expires_at)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(id)
}

/// Binds the token to `key` and pins the key on the token's server.
pub async fn redeem(
    store: &Store,
    secret_hash: &str,
    key: &PublicKey,
    now: i64,
) -> Result<Result<ServerId, Rejected>, StoreError> {
    let mut tx = store.begin().await?;
    let sql = format!(
        "SELECT id, server_id, expires_at, used_by, spent_at FROM join_tokens WHERE secret_hash = $1{}",
        super::row_lock(&tx, "join_tokens")
    );
    let Some(row) = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(secret_hash.to_owned()).fetch_optional(&mut *tx).await?
    else {
        return Ok(Err(Rejected::Unknown));
    };
    let key_text = key.to_string();
    let used_by: Option<String> = row.try_get("used_by")?;
    let again = used_by.as_deref() == Some(&key_text);
    if row.try_get::<Option<i64>, _>("spent_at")?.is_some() || (used_by.is_some() && !again) {
        return Ok(Err(Rejected::Used));
    }
    if !again && row.try_get::<i64, _>("expires_at")? <= now {
        return Ok(Err(Rejected::Expired));
    }
    let server: String = row.try_get("server_id")?;
    if let Err(rejected) = pin(&mut tx, &server, &key_text, now).await? {
        return Ok(Err(rejected));
    }
    sqlx::query("UPDATE join_tokens SET used_by = $2, used_at = $3 WHERE id = $1")
        .bind(row.try_get::<String, _>("id")?)
        .bind(key_text)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let server = server.parse().map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })?;
    Ok(Ok(server))
}

async fn pin(
    connection: &mut AnyConnection,
    server: &str,
    key: &str,
    now: i64,
) -> Result<Result<(), Rejected>, StoreError> {
    let pinned = sqlx::query(
        "UPDATE servers SET public_key = $2, status = $3, updated_at = $4 \
         WHERE id = $1 AND status IN ('created', 'enrolled') RETURNING name, owner_id",
    )
    .bind(server.to_owned())
    .bind(key.to_owned())
    .bind(ServerStatus::Enrolled.as_str())
    .bind(now)
    .fetch_optional(&mut *connection)
    .await
    .map_err(StoreError::from);
    match pinned {
        Ok(Some(row)) => {
            let id =
                server.parse().map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })?;
            let details = [("enrolled", true.into())];
            record(connection, id, EventKind::ServerUpdated, &row, Actor::Node, &details).await?;
            Ok(Ok(()))
        }
        Ok(None) => Ok(Err(Rejected::ShutOut)),
        Err(StoreError::Duplicate { .. }) => Ok(Err(Rejected::WrongKey)),
        Err(error) => Err(error),
    }
}

/// The first hello of `server` with `key`: every token of the server is spent.
pub async fn spend(
    connection: &mut AnyConnection,
    server: ServerId,
    key: &PublicKey,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE join_tokens SET spent_at = $3 WHERE server_id = $1 AND used_by = $2 AND spent_at IS NULL")
        .bind(server.to_string())
        .bind(key.to_string())
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets tokens that expired before `before`.
pub async fn forget_expired(connection: &mut AnyConnection, before: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM join_tokens WHERE expires_at < $1").bind(before).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
#[path = "join_token_tests.rs"]
mod tests;
