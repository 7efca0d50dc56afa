//! Snapshots of containers. A row is written with the operation that takes it and settled with that one's
//! end; whoever changes one has locked its container.

use super::{Store, StoreError, event, operation::Ended, status_log};
use crate::{
    event::{Actor, EventKind, NewEvent, container::Identity},
    store::container::ContainerRow,
};
use hoody_protocol::{
    id::{ContainerId, ServerId, SnapshotId},
    operation::OperationKind,
};
use serde_json::json;
use sqlx::{AnyConnection, Row, any::AnyRow};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// Identity, on its server too.
    pub id: SnapshotId,
    /// The container.
    pub container: ContainerId,
    /// Unique among those of the container, as is the alias.
    pub name: String,
    /// Another name, for people.
    pub alias: Option<String>,
    /// Where it is in its life.
    pub state: SnapshotState,
    /// Bytes that it may keep from being freed.
    pub size_bytes: i64,
    /// Since when its content is kept.
    pub created_at: i64,
    /// When it is deleted; `None`: never.
    pub expires_at: Option<i64>,
    /// When it was last restored or copied.
    pub last_used_at: Option<i64>,
}

/// Where a snapshot is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    /// Its server was asked to take it.
    Creating,
    /// Its server holds it.
    Ready,
    /// Its server was asked to delete it.
    Deleting,
}

impl SnapshotState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
        }
    }

    fn parse(word: &str) -> Result<Self, StoreError> {
        let states = [Self::Creating, Self::Ready, Self::Deleting];
        let found = states.into_iter().find(|state| state.as_str() == word);
        found.ok_or_else(|| StoreError::Corrupt { what: "snapshots.state", source: word.into() })
    }
}

const COLUMNS: &str = "id, container_id, name, alias, state, size_bytes, created_at, expires_at, last_used_at";

fn read(row: &AnyRow) -> Result<SnapshotRow, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    Ok(SnapshotRow {
        id: text("id")?.parse().map_err(corrupt("snapshots.id"))?,
        container: text("container_id")?.parse().map_err(corrupt("snapshots.container_id"))?,
        name: text("name")?,
        alias: row.try_get("alias")?,
        state: SnapshotState::parse(&text("state")?)?,
        size_bytes: row.try_get("size_bytes")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

/// Every snapshot of the container, the oldest first.
pub async fn list<'e>(
    queries: impl super::Queries<'e>,
    container: ContainerId,
) -> Result<Vec<SnapshotRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE container_id = $1 ORDER BY created_at, id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(container.to_string()).fetch_all(queries).await?;
    rows.iter().map(read).collect()
}

/// The snapshot with this id.
pub async fn get(store: &Store, id: SnapshotId) -> Result<Option<SnapshotRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(store.reader()).await?;
    row.as_ref().map(read).transpose()
}

/// Adds a snapshot.
pub async fn insert(connection: &mut AnyConnection, row: &SnapshotRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO snapshots (id, container_id, name, alias, state, size_bytes, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(row.id.to_string())
    .bind(row.container.to_string())
    .bind(row.name.clone())
    .bind(row.alias.clone())
    .bind(row.state.as_str())
    .bind(row.size_bytes)
    .bind(row.created_at)
    .bind(row.expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives a snapshot that is ready another alias, or none.
pub async fn set_alias(connection: &mut AnyConnection, id: SnapshotId, alias: Option<&str>) -> Result<(), StoreError> {
    sqlx::query("UPDATE snapshots SET alias = $2 WHERE id = $1 AND state = 'ready'")
        .bind(id.to_string())
        .bind(alias.map(str::to_owned))
        .execute(connection)
        .await?;
    Ok(())
}

/// Marks a snapshot that is ready as being deleted; false where it is not ready (any more).
pub async fn begin_deletion(connection: &mut AnyConnection, id: SnapshotId) -> Result<bool, StoreError> {
    let sql = "UPDATE snapshots SET state = 'deleting' WHERE id = $1 AND state = 'ready'";
    let done = sqlx::query(sql).bind(id.to_string()).execute(&mut *connection).await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that a snapshot was used just now.
pub async fn used(connection: &mut AnyConnection, row: &SnapshotRow, now: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE snapshots SET last_used_at = $2 WHERE id = $1")
        .bind(row.id.to_string())
        .bind(now)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE containers SET last_used_snapshot = $2 WHERE id = $1")
        .bind(row.container.to_string())
        .bind(row.name.clone())
        .execute(connection)
        .await?;
    Ok(())
}

/// A snapshot that has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub snapshot: SnapshotRow,
    /// Where it is.
    pub server: ServerId,
    /// When it expired.
    pub since: i64,
}

/// Snapshots that have expired and whose servers are online, at most `limit`, the first to expire first; with `after`, what
/// comes after that one.
pub async fn due(
    store: &Store,
    now: i64,
    after: Option<(i64, SnapshotId)>,
    limit: i64,
) -> Result<Vec<Due>, StoreError> {
    let (since, id) = after.map_or((i64::MIN, String::new()), |(since, id)| (since, id.to_string()));
    let rows = sqlx::query(
        "SELECT x.id, x.container_id, x.name, x.alias, x.state, x.size_bytes, x.created_at, x.expires_at, x.last_used_at, \
         c.server_id FROM snapshots x JOIN containers c ON c.id = x.container_id JOIN servers s ON s.id = c.server_id \
         WHERE x.expires_at <= $1 AND x.expires_at >= $2 AND (x.expires_at > $2 OR x.id > $3) AND x.state = 'ready' \
         AND c.deleted_at IS NULL AND s.online = 1 ORDER BY x.expires_at, x.id LIMIT $4",
    )
    .bind(now)
    .bind(since)
    .bind(id)
    .bind(limit)
    .fetch_all(store.reader())
    .await?;
    let due = |row: &AnyRow| {
        let server = row.try_get::<String, _>("server_id")?.parse().map_err(corrupt("containers.server_id"))?;
        Ok(Due { snapshot: read(row)?, server, since: row.try_get("expires_at")? })
    };
    rows.iter().map(due).collect()
}

/// Copies that are still to be made from snapshot `$2` of container `$1`.
const COPIES: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM transfers t JOIN containers c ON c.id = t.container_id \
    WHERE t.source_container_id = $1 AND t.snapshot_id = $2 AND t.purpose <> 'move' \
    AND (t.state = 'open' OR (t.source_server_id = t.target_server_id AND c.status = 'copying'))";

/// True while another container is still to be made from the snapshot, which is one of `container`. What it is sent for when
/// its own container moves does not need it: that goes on without it.
pub async fn is_being_copied(
    connection: &mut AnyConnection,
    container: ContainerId,
    id: SnapshotId,
) -> Result<bool, StoreError> {
    let copies: i64 =
        sqlx::query_scalar(COPIES).bind(container.to_string()).bind(id.to_string()).fetch_one(connection).await?;
    Ok(copies > 0)
}

/// What the end of an operation means for its snapshot: the change of the row, and the event that tells of it; `None`
/// where it was none of a snapshot, or failed. `owned` is the container, which is locked.
pub(super) async fn settle(
    connection: &mut AnyConnection,
    owned: &ContainerRow,
    actor: Actor,
    ended: &Ended<'_>,
) -> Result<Option<NewEvent>, StoreError> {
    let (kind, id) = match ended.kind {
        OperationKind::Restart | OperationKind::Sync { .. } => return Ok(None),
        OperationKind::CreateSnapshot { snapshot } => (EventKind::ContainerSnapshotCreated, snapshot),
        OperationKind::RestoreSnapshot { snapshot } => (EventKind::ContainerSnapshotRestored, snapshot),
        OperationKind::DeleteSnapshot { snapshot } => (EventKind::ContainerSnapshotDeleted, snapshot),
    };
    let all = list(&mut *connection, owned.spec.id).await?;
    let Some(row) = all.into_iter().find(|row| row.id == id) else { return Ok(None) };
    let (done, now) = (ended.failure.is_none(), ended.at);
    let run = match (kind, done) {
        (EventKind::ContainerSnapshotCreated, true) => {
            let sql = "UPDATE snapshots SET state = 'ready', size_bytes = $2 WHERE id = $1 AND state = 'creating'";
            let bytes = i64::try_from(ended.bytes.unwrap_or(0)).unwrap_or(i64::MAX);
            sqlx::query(sql).bind(id.to_string()).bind(bytes)
        }
        (EventKind::ContainerSnapshotCreated, false) | (EventKind::ContainerSnapshotDeleted, true) => {
            sqlx::query("DELETE FROM snapshots WHERE id = $1").bind(id.to_string())
        }
        (EventKind::ContainerSnapshotDeleted, false) => {
            let sql = "UPDATE snapshots SET state = 'ready' WHERE id = $1 AND state = 'deleting'";
            sqlx::query(sql).bind(id.to_string())
        }
        (_, true) => {
            used(connection, &row, now).await?;
            log_restored(connection, owned, &row, now).await?;
            return Ok(Some(event_of(owned, kind, actor, &row)));
        }
        (_, false) => return Ok(None),
    };
    run.execute(&mut *connection).await?;
    count(connection, owned.spec.id).await?;
    Ok(done.then(|| event_of(owned, kind, actor, &row)))
}

/// Writes down how many snapshots of the container are ready.
pub(super) async fn count(connection: &mut AnyConnection, container: ContainerId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE containers SET snapshot_count = \
         (SELECT COUNT(*) FROM snapshots WHERE container_id = $1 AND state = 'ready') WHERE id = $1",
    )
    .bind(container.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// An entry whose status before and after are the same: what runs is another content.
async fn log_restored(
    connection: &mut AnyConnection,
    owned: &ContainerRow,
    row: &SnapshotRow,
    now: i64,
) -> Result<(), StoreError> {
    let status = owned.status.as_str();
    let entry = status_log::Entry {
        container: row.container,
        from: Some(status),
        to: status,
        trigger: status_log::Trigger::Node,
        metadata: Some(json!({"operation": "restore_snapshot", "snapshot": row.name}).to_string()),
        duration_ms: None,
        at: now,
    };
    status_log::add(connection, entry).await
}

fn event_of(owned: &ContainerRow, kind: EventKind, actor: Actor, row: &SnapshotRow) -> NewEvent {
    let event = Identity::of(owned).event(kind, actor).with("snapshot_name", row.name.as_str());
    event.with("snapshot_alias", row.alias.clone())
}

/// Writes the event of a new alias.
pub async fn tell_renamed(
    connection: &mut AnyConnection,
    owned: &ContainerRow,
    actor: Actor,
    before: &SnapshotRow,
    alias: Option<&str>,
) -> Result<(), StoreError> {
    let row = SnapshotRow { alias: alias.map(str::to_owned), ..before.clone() };
    let event = event_of(owned, EventKind::ContainerSnapshotRenamed, actor, &row);
    event::insert(connection, &event.with("previous_alias", before.alias.clone())).await?;
    Ok(())
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
