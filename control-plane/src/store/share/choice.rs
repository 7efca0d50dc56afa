//! What single containers do with shares.

use super::{flag, id};
use crate::store::{Queries, StoreError, idempotency};
use hoody_protocol::{
    id::{ContainerId, ShareChoiceId, ShareId},
    time::now_ms,
};
use sqlx::{AnyConnection, Row};

/// A container's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Identity.
    pub id: ShareChoiceId,
    /// The share.
    pub share: ShareId,
    /// The container.
    pub container: ContainerId,
    /// It mounts it.
    pub mount: bool,
    /// Milliseconds.
    pub created_at: i64,
    /// Milliseconds.
    pub updated_at: i64,
}

/// The container's choice; `None`: it has not made one.
pub async fn choice<'e>(
    queries: impl Queries<'e>,
    share: ShareId,
    container: ContainerId,
) -> Result<Option<Choice>, StoreError> {
    let sql = "SELECT id, mount, created_at, updated_at FROM share_choices WHERE share_id = $1 AND container_id = $2";
    let row = sqlx::query(sql).bind(share.to_string()).bind(container.to_string()).fetch_optional(queries).await?;
    let Some(row) = row else { return Ok(None) };
    let (created_at, updated_at) = (row.try_get("created_at")?, row.try_get("updated_at")?);
    Ok(Some(Choice { id: id(&row, "id")?, share, container, mount: flag(&row, "mount")?, created_at, updated_at }))
}

/// Writes the container's choice.
pub async fn choose(
    connection: &mut AnyConnection,
    share: ShareId,
    container: ContainerId,
    mount: bool,
) -> Result<(), StoreError> {
    idempotency::note(connection, "share", &share.to_string()).await?;
    sqlx::query(
        "INSERT INTO share_choices (id, share_id, container_id, mount, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $5) \
         ON CONFLICT (share_id, container_id) DO UPDATE SET mount = excluded.mount, updated_at = excluded.updated_at",
    )
    .bind(ShareChoiceId::generate().to_string())
    .bind(share.to_string())
    .bind(container.to_string())
    .bind(i64::from(mount))
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(())
}
