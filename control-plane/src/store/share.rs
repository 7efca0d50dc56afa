//! Shares: folders of one container that others mount. What a container mounts is part of its specification; these rows
//! are what that is made from, in the same transaction.

mod choice;
mod list;
mod room;

pub use choice::{Choice, choice, choose};
pub use list::{Side, incoming, list, of_source};
pub use room::{offered_by, taken_by, taken_by_all_of};

use super::{Queries, StoreError, idempotency};
use hoody_protocol::id::{ContainerId, InvalidId, ProjectId, RealmId, ServerId, ShareId, UserId};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use std::str::FromStr;

/// Who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// One container.
    Container(ContainerId),
    /// Every container of a project, also those to come.
    Project(ProjectId),
}

impl Target {
    /// The container, where it is one.
    pub fn container(self) -> Option<ContainerId> {
        match self {
            Self::Container(id) => Some(id),
            Self::Project(_) => None,
        }
    }

    /// The project, where it is one.
    pub fn project(self) -> Option<ProjectId> {
        match self {
            Self::Project(id) => Some(id),
            Self::Container(_) => None,
        }
    }
}

/// A share, and what it has from its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Identity.
    pub id: ShareId,
    /// Whose folder.
    pub source: ContainerId,
    /// The folder, absolute in the source.
    pub path: String,
    /// Who gets it.
    pub target: Target,
    /// Nothing can be written through it.
    pub readonly: bool,
    /// What it is mounted as; `None`: its id.
    pub alias: Option<String>,
    /// Where it appears beside `/mnt/shares`.
    pub place: Option<String>,
    /// For people.
    pub label: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Its source wants it mounted.
    pub enabled: bool,
    /// Containers that have not chosen mount it.
    pub accepted: bool,
    /// When it ends; milliseconds.
    pub expires_at: Option<i64>,
    /// Its client counts in milliseconds.
    pub expires_in_ms: bool,
    /// It was told that it ends soon.
    pub expiry_notified: bool,
    /// Its end was carried out.
    pub expired: bool,
    /// Who made it.
    pub created_by: UserId,
    /// Milliseconds.
    pub created_at: i64,
    /// Milliseconds.
    pub updated_at: i64,
    /// The source's owner.
    pub owner: UserId,
    /// The source's project.
    pub project: ProjectId,
    /// The source's server.
    pub server: ServerId,
    /// The source's realms.
    pub realms: Vec<RealmId>,
}

impl Share {
    /// The contract's word.
    pub fn mode(&self) -> &'static str {
        if self.readonly { "readonly" } else { "readwrite" }
    }
}

const SELECT: &str = "SELECT s.id, s.source_container_id, s.source_path, s.target_container_id, s.target_project_id, \
    s.mode, s.alias, s.mount_path, s.label, s.description, s.enabled, s.accepted, s.expires_at, s.expires_in_ms, \
    s.expiry_notified, s.expired, s.created_by, s.created_at, s.updated_at, c.owner_id, c.project_id, c.server_id, c.realm_ids \
    FROM shares s JOIN containers c ON c.id = s.source_container_id";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn id<T: FromStr<Err = InvalidId>>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    row.try_get::<String, _>(column)?.parse().map_err(corrupt(column))
}

fn flag(row: &AnyRow, column: &str) -> Result<bool, StoreError> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

fn read(row: &AnyRow) -> Result<Share, StoreError> {
    let target: Option<String> = row.try_get("target_container_id")?;
    let target = match target {
        Some(text) => Target::Container(text.parse().map_err(corrupt("shares.target_container_id"))?),
        None => Target::Project(id(row, "target_project_id")?),
    };
    let realms: String = row.try_get("realm_ids")?;
    Ok(Share {
        id: id(row, "id")?,
        source: id(row, "source_container_id")?,
        path: row.try_get("source_path")?,
        target,
        readonly: row.try_get::<String, _>("mode")? == "readonly",
        alias: row.try_get("alias")?,
        place: row.try_get("mount_path")?,
        label: row.try_get("label")?,
        description: row.try_get("description")?,
        enabled: flag(row, "enabled")?,
        accepted: flag(row, "accepted")?,
        expires_at: row.try_get("expires_at")?,
        expires_in_ms: flag(row, "expires_in_ms")?,
        expiry_notified: flag(row, "expiry_notified")?,
        expired: flag(row, "expired")?,
        created_by: id(row, "created_by")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        owner: id(row, "owner_id")?,
        project: id(row, "project_id")?,
        server: id(row, "server_id")?,
        realms: serde_json::from_str(&realms).map_err(corrupt("containers.realm_ids"))?,
    })
}

/// The share with this id.
pub async fn get<'e>(queries: impl Queries<'e>, id: ShareId) -> Result<Option<Share>, StoreError> {
    let sql = format!("{SELECT} WHERE s.id = $1");
    sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(queries).await?.as_ref().map(read).transpose()
}

/// The share with this id, which nobody else changes before the transaction ends. Containers are locked first.
pub async fn lock(connection: &mut AnyConnection, id: ShareId) -> Result<Option<Share>, StoreError> {
    let sql = format!("{SELECT} WHERE s.id = $1{}", super::row_lock(connection, "s"));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Adds a share.
pub async fn insert(connection: &mut AnyConnection, share: &Share) -> Result<(), StoreError> {
    idempotency::note(connection, "share", &share.id.to_string()).await?;
    sqlx::query(
        "INSERT INTO shares (id, source_container_id, source_path, target_container_id, target_project_id, mode, alias, \
         label, description, enabled, accepted, expires_at, expires_in_ms, created_by, created_at, updated_at, \
         mount_path) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16)",
    )
    .bind(share.id.to_string())
    .bind(share.source.to_string())
    .bind(share.path.clone())
    .bind(share.target.container().map(|id| id.to_string()))
    .bind(share.target.project().map(|id| id.to_string()))
    .bind(share.mode())
    .bind(share.alias.clone())
    .bind(share.label.clone())
    .bind(share.description.clone())
    .bind(i64::from(share.enabled))
    .bind(i64::from(share.accepted))
    .bind(share.expires_at)
    .bind(i64::from(share.expires_in_ms))
    .bind(share.created_by.to_string())
    .bind(share.created_at)
    .bind(share.place.clone())
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what of a share changes.
pub async fn update(connection: &mut AnyConnection, share: &Share) -> Result<(), StoreError> {
    idempotency::note(connection, "share", &share.id.to_string()).await?;
    sqlx::query(
        "UPDATE shares SET mode = $2, alias = $3, label = $4, description = $5, enabled = $6, expires_at = $7, \
         expires_in_ms = $8, expiry_notified = $9, expired = $10, updated_at = $11, mount_path = $12 WHERE id = $1",
    )
    .bind(share.id.to_string())
    .bind(share.mode())
    .bind(share.alias.clone())
    .bind(share.label.clone())
    .bind(share.description.clone())
    .bind(i64::from(share.enabled))
    .bind(share.expires_at)
    .bind(i64::from(share.expires_in_ms))
    .bind(i64::from(share.expiry_notified))
    .bind(i64::from(share.expired))
    .bind(share.updated_at)
    .bind(share.place.clone())
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes a share.
pub async fn delete(connection: &mut AnyConnection, id: ShareId) -> Result<(), StoreError> {
    idempotency::note(connection, "share", &id.to_string()).await?;
    sqlx::query("DELETE FROM shares WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// Shares that are over at the time `now`, and not ended yet.
pub async fn due<'e>(queries: impl Queries<'e>, now: i64, limit: u32) -> Result<Vec<ShareId>, StoreError> {
    let sql = "SELECT id FROM shares WHERE expired = 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2";
    let rows = sqlx::query(sql).bind(now).bind(i64::from(limit)).fetch_all(queries).await?;
    rows.iter().map(|row| id(row, "id")).collect()
}

/// Shares that are over by `soon`, and have not been told of.
pub async fn ending<'e>(queries: impl Queries<'e>, soon: i64, limit: u32) -> Result<Vec<ShareId>, StoreError> {
    let sql = "SELECT id FROM shares WHERE expired = 0 AND expires_at <= $1 AND expiry_notified = 0 AND enabled = 1 \
        ORDER BY expires_at LIMIT $2";
    let rows = sqlx::query(sql).bind(soon).bind(i64::from(limit)).fetch_all(queries).await?;
    rows.iter().map(|row| id(row, "id")).collect()
}

/// What the container may mount at the time `now`, oldest first, as far as its own side has not refused: enabled, not
/// over, and of a source on the same server that is not being deleted.
pub async fn mountable(
    connection: &mut AnyConnection,
    container: ContainerId,
    project: ProjectId,
    server: ServerId,
    now: i64,
) -> Result<Vec<Share>, StoreError> {
    let sql = format!(
        "{SELECT} LEFT JOIN share_choices o ON o.share_id = s.id AND o.container_id = $1 \
         WHERE (s.target_container_id = $1 OR s.target_project_id = $2) AND s.source_container_id <> $1 \
         AND s.enabled = 1 AND s.expired = 0 AND (s.expires_at IS NULL OR s.expires_at > $4) \
         AND c.server_id = $3 AND c.deleted_at IS NULL AND COALESCE(o.mount, s.accepted) = 1 \
         ORDER BY s.created_at, s.id"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(container.to_string())
        .bind(project.to_string())
        .bind(server.to_string())
        .bind(now)
        .fetch_all(connection)
        .await?;
    rows.iter().map(read).collect()
}

/// The containers that a share of `source` for `target` concerns: not the source itself, none that is being deleted.
pub async fn concerned<'e>(
    queries: impl Queries<'e>,
    source: ContainerId,
    target: Target,
) -> Result<Vec<ContainerId>, StoreError> {
    let (column, value) = match target {
        Target::Container(id) => ("id", id.to_string()),
        Target::Project(id) => ("project_id", id.to_string()),
    };
    let sql = format!("SELECT id FROM containers WHERE {column} = $1 AND id <> $2 AND deleted_at IS NULL ORDER BY id");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(value).bind(source.to_string()).fetch_all(queries).await?;
    rows.iter().map(|row| id(row, "id")).collect()
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
