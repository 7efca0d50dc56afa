//! Login sessions: one row per login, holding the hash of its newest refresh token.

use super::{Store, StoreError, event};
use crate::event::{Actor, EventKind, NewEvent};
use hoody_protocol::{
    id::{SessionId, UserId},
    time::now_ms,
};
use sqlx::AnyConnection;

/// Starts a session; sessions of the user that have expired go.
pub async fn insert(
    connection: &mut AnyConnection,
    id: SessionId,
    user: UserId,
    refresh_hash: &str,
    expires_at: i64,
) -> Result<(), StoreError> {
    let now = now_ms() as i64;
    sqlx::query("DELETE FROM sessions WHERE user_id = $1 AND expires_at < $2")
        .bind(user.to_string())
        .bind(now)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO sessions (id, user_id, refresh_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(id.to_string())
        .bind(user.to_string())
        .bind(refresh_hash)
        .bind(now)
        .bind(expires_at)
        .execute(&mut *connection)
        .await?;
    record(connection, id, user, "login").await
}

/// The contract has no kinds for sessions: they are activity of the user.
async fn record(connection: &mut AnyConnection, id: SessionId, user: UserId, action: &str) -> Result<(), StoreError> {
    let told = NewEvent::new(EventKind::ActivityLogged, id, Some(user), Actor::User(user)).with("action", action);
    event::insert(connection, &told).await?;
    Ok(())
}

/// Replaces the session's refresh token, if `old` is still the newest.
pub async fn rotate(
    store: &Store,
    id: SessionId,
    old_hash: &str,
    new_hash: &str,
    expires_at: i64,
) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let rotated =
        sqlx::query("UPDATE sessions SET refresh_hash = $3, expires_at = $4 WHERE id = $1 AND refresh_hash = $2")
            .bind(id.to_string())
            .bind(old_hash)
            .bind(new_hash)
            .bind(expires_at)
            .execute(&mut *tx)
            .await?
            .rows_affected();
    tx.commit().await?;
    Ok(rotated == 1)
}

/// Ends a session; true where it was still there.
pub async fn delete(store: &Store, id: SessionId) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let user: Option<String> = sqlx::query_scalar("DELETE FROM sessions WHERE id = $1 RETURNING user_id")
        .bind(id.to_string())
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(user) = &user {
        let user = user.parse().map_err(|error| corrupt("sessions.user_id", error))?;
        record(&mut tx, id, user, "session_ended").await?;
    }
    tx.commit().await?;
    Ok(user.is_some())
}

/// Ends every session of the user.
pub async fn delete_all(connection: &mut AnyConnection, user: UserId) -> Result<(), StoreError> {
    let ended: Vec<String> = sqlx::query_scalar("DELETE FROM sessions WHERE user_id = $1 RETURNING id")
        .bind(user.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for id in ended {
        record(connection, id.parse().map_err(|error| corrupt("sessions.id", error))?, user, "logout").await?;
    }
    Ok(())
}

/// Ends every session of the user but one.
pub async fn delete_others(connection: &mut AnyConnection, user: UserId, kept: SessionId) -> Result<(), StoreError> {
    let ended: Vec<String> = sqlx::query_scalar("DELETE FROM sessions WHERE user_id = $1 AND id <> $2 RETURNING id")
        .bind(user.to_string())
        .bind(kept.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for id in ended {
        record(connection, id.parse().map_err(|error| corrupt("sessions.id", error))?, user, "session_ended").await?;
    }
    Ok(())
}

fn corrupt(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Corrupt { what, source: Box::new(source) }
}
