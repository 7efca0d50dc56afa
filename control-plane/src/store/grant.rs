//! What is given out once and brought back once: each is a random token of which the hash is stored, with what
//! it stands for.

use super::{Store, StoreError};
use hoody_protocol::{id::UserId, time::now_ms};
use sqlx::{AnyConnection, Row};

/// What a grant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantKind {
    /// Opens a provider's page in another window.
    Launch,
    /// Somebody is at a provider's page.
    Flow,
    /// A login that is not a session yet.
    Intent,
    /// A code on its way to an application.
    Code,
    /// A command that is to be confirmed.
    Command,
}

impl GrantKind {
    fn word(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Flow => "flow",
            Self::Intent => "intent",
            Self::Code => "code",
            Self::Command => "command",
        }
    }
}

/// A grant that was taken.
#[derive(Debug)]
pub struct Grant {
    /// Whose it is, where it is somebody's already.
    pub user: Option<UserId>,
    /// JSON.
    pub content: String,
}

/// Stores a grant until `expires_at`.
pub async fn insert(
    connection: &mut AnyConnection,
    token_hash: &str,
    kind: GrantKind,
    user: Option<UserId>,
    content: &str,
    expires_at: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO grants (token_hash, kind, user_id, content, expires_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(token_hash)
        .bind(kind.word())
        .bind(user.map(|user| user.to_string()))
        .bind(content)
        .bind(expires_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a grant: it is gone then. `None` where it is not known, was taken, or has expired.
pub async fn take(
    connection: &mut AnyConnection,
    token_hash: &str,
    kind: GrantKind,
) -> Result<Option<Grant>, StoreError> {
    let row = sqlx::query(
        "DELETE FROM grants WHERE token_hash = $1 AND kind = $2 AND expires_at > $3 RETURNING user_id, content",
    )
    .bind(token_hash)
    .bind(kind.word())
    .bind(now_ms() as i64)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let user: Option<String> = row.try_get("user_id")?;
    let user = user.map(|text| text.parse()).transpose();
    let user = user.map_err(|error| StoreError::Corrupt { what: "grants.user_id", source: Box::new(error) })?;
    Ok(Some(Grant { user, content: row.try_get("content")? }))
}

/// Forgets grants that nobody brought back.
pub async fn purge(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM grants WHERE expires_at <= $1").bind(now_ms() as i64).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::each_backend;

    #[tokio::test]
    async fn a_grant_is_good_once_in_time_and_for_what_it_was_given() {
        each_backend(|store| async move {
            let mut tx = store.begin().await.unwrap();
            let later = now_ms() as i64 + 60_000;
            insert(&mut tx, "good", GrantKind::Command, None, "{}", later).await.unwrap();
            insert(&mut tx, "late", GrantKind::Command, None, "{}", now_ms() as i64 - 1).await.unwrap();
            for other in [GrantKind::Launch, GrantKind::Flow, GrantKind::Intent, GrantKind::Code] {
                assert!(take(&mut tx, "good", other).await.unwrap().is_none(), "{other:?}");
            }
            assert!(take(&mut tx, "late", GrantKind::Command).await.unwrap().is_none());
            assert!(take(&mut tx, "unknown", GrantKind::Command).await.unwrap().is_none());
            assert_eq!(take(&mut tx, "good", GrantKind::Command).await.unwrap().unwrap().content, "{}");
            assert!(take(&mut tx, "good", GrantKind::Command).await.unwrap().is_none());
        })
        .await;
    }
}
