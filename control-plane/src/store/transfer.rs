//! Transfers of file systems between servers: `open → kept | ended`. What stands here is who may open the ends of one.

use super::{Store, StoreError};
use hoody_protocol::{
    container::{Cause, ContainerSpec},
    id::{ContainerId, ServerId, SnapshotId, TransferId},
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::collections::HashSet;

/// A transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Identity.
    pub id: TransferId,
    /// The container that is made, or brought up to date.
    pub container: ContainerId,
    /// Its server.
    pub target: ServerId,
    /// The container that is sent.
    pub source_container: ContainerId,
    /// Its server.
    pub source: ServerId,
    /// One of its snapshots; `None`: as it is when it is first sent.
    pub snapshot: Option<SnapshotId>,
    /// The transfer that this is the difference from; `None`: everything.
    pub base: Option<TransferId>,
}

pub(super) const COLUMNS: &str =
    "id, container_id, target_server_id, source_container_id, source_server_id, snapshot_id, base_id";

pub(super) fn from_row(row: &AnyRow) -> Result<Transfer, StoreError> {
    fn id<T: std::str::FromStr<Err = hoody_protocol::id::InvalidId>>(text: &str) -> Result<T, StoreError> {
        text.parse().map_err(|error| StoreError::Corrupt { what: "transfers", source: Box::new(error) })
    }
    let text = |column: &str| row.try_get::<String, _>(column);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    Ok(Transfer {
        id: id(&text("id")?)?,
        container: id(&text("container_id")?)?,
        target: id(&text("target_server_id")?)?,
        source_container: id(&text("source_container_id")?)?,
        source: id(&text("source_server_id")?)?,
        snapshot: optional("snapshot_id")?.as_deref().map(id).transpose()?,
        base: optional("base_id")?.as_deref().map(id).transpose()?,
    })
}

/// Writes a transfer down; it is open.
pub async fn insert(connection: &mut AnyConnection, transfer: &Transfer, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO transfers (id, container_id, target_server_id, source_container_id, source_server_id, \
         snapshot_id, base_id, state, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8)",
    )
    .bind(transfer.id.to_string())
    .bind(transfer.container.to_string())
    .bind(transfer.target.to_string())
    .bind(transfer.source_container.to_string())
    .bind(transfer.source.to_string())
    .bind(transfer.snapshot.map(|id| id.to_string()))
    .bind(transfer.base.map(|id| id.to_string()))
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// The transfer, whatever became of it.
pub async fn get<'e>(queries: impl super::Queries<'e>, id: TransferId) -> Result<Option<Transfer>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM transfers WHERE id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(queries).await?;
    row.as_ref().map(from_row).transpose()
}

/// The transfer, while it is open.
pub async fn open(store: &Store, id: TransferId) -> Result<Option<Transfer>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM transfers WHERE id = $1 AND state = 'open'");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(store.reader()).await?;
    row.as_ref().map(from_row).transpose()
}

/// Says that the target keeps it whole; false where it is not open.
pub async fn keep(connection: &mut AnyConnection, id: TransferId, bytes: u64, now: i64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE transfers SET state = 'kept', failure = NULL, bytes = $2, ended_at = $3 \
         WHERE id = $1 AND state = 'open'",
    )
    .bind(id.to_string())
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .bind(now)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Says why the last try failed; the transfer stays open for the next.
pub async fn note_failure(connection: &mut AnyConnection, id: TransferId, why: &Cause) -> Result<(), StoreError> {
    let text = serde_json::to_string(why)
        .map_err(|error| StoreError::Corrupt { what: "transfers.failure", source: Box::new(error) })?;
    sqlx::query("UPDATE transfers SET failure = $2 WHERE id = $1 AND state = 'open'")
        .bind(id.to_string())
        .bind(text)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends a transfer that is not wanted any more; false where it is not open.
pub async fn end(connection: &mut AnyConnection, id: TransferId, now: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE transfers SET state = 'ended', ended_at = $2 WHERE id = $1 AND state = 'open'")
        .bind(id.to_string())
        .bind(now)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// A transfer that has not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// Which.
    pub transfer: Transfer,
    /// True: it brings a container up to date which exists.
    pub sync: bool,
    /// All of it has arrived.
    pub kept: bool,
    /// Why the last try failed.
    pub failure: Option<Cause>,
    /// When it was asked for.
    pub created_at: i64,
}

/// What is on its way to the container.
pub async fn moving(store: &Store, container: ContainerId) -> Result<Option<Moving>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, purpose, state, failure, created_at FROM transfers WHERE container_id = $1 \
         AND ((purpose = 'copy' AND state = 'open') OR (purpose = 'sync' AND settled_at IS NULL)) \
         ORDER BY created_at DESC, id DESC LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(container.to_string()).fetch_optional(store.reader()).await?;
    let Some(row) = row else { return Ok(None) };
    let failure = row.try_get::<Option<String>, _>("failure")?.as_deref().map(serde_json::from_str).transpose();
    let corrupt = |error| StoreError::Corrupt { what: "transfers.failure", source: Box::new(error) };
    Ok(Some(Moving {
        transfer: from_row(&row)?,
        sync: row.try_get::<String, _>("purpose")? == "sync",
        kept: row.try_get::<String, _>("state")? == "kept",
        failure: failure.map_err(corrupt)?,
        created_at: row.try_get("created_at")?,
    }))
}

/// What is known of a transfer that a server asks for and that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOpen {
    /// No container of the server is to be made from it.
    Unknown,
    /// The container that it came from was deleted before all of it was there.
    SourceDeleted,
    /// All of it was there, and something may be based on it.
    Lost,
}

/// Why the transfer, for which the server asks, is not open. Without a row of the transfer, the source of a copy is gone.
pub async fn not_open(store: &Store, id: TransferId, server: ServerId) -> Result<NotOpen, StoreError> {
    let rows = sqlx::query("SELECT spec FROM containers WHERE server_id = $1 AND spec LIKE $2")
        .bind(server.to_string())
        .bind(format!("%{id}%"))
        .fetch_all(store.reader())
        .await?;
    for row in rows {
        let spec: ContainerSpec = serde_json::from_str(row.try_get("spec")?)
            .map_err(|error| StoreError::Corrupt { what: "containers.spec", source: Box::new(error) })?;
        // Tenants write some of the text.
        if spec.transfer != Some(id) {
            continue;
        }
        let is_known = get(store.reader(), id).await?.is_some_and(|row| row.target == server);
        // What a container moved by goes, and nothing tells then when the source did.
        return Ok(if is_known || spec.moved { NotOpen::Lost } else { NotOpen::SourceDeleted });
    }
    Ok(NotOpen::Unknown)
}

/// Ends what came between the two containers before the transfer, where that is kept: nothing is based on it any more.
pub(super) async fn supersede(connection: &mut AnyConnection, id: TransferId, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE transfers SET state = 'ended', ended_at = $2 WHERE state = 'kept' AND purpose <> 'move' AND id <> $1 \
         AND container_id = (SELECT container_id FROM transfers WHERE id = $1) \
         AND source_container_id = (SELECT source_container_id FROM transfers WHERE id = $1 AND state = 'kept') \
         AND created_at <= (SELECT created_at FROM transfers WHERE id = $1)",
    )
    .bind(id.to_string())
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes transfers that ended before that time; how many. That by which a container was copied stays with it, so that it is
/// known that its source was not deleted.
pub async fn delete_before(store: &Store, before: i64, most: u32) -> Result<u64, StoreError> {
    let write = store.write(move |connection| {
        Box::pin(async move {
            let done = sqlx::query(
                "DELETE FROM transfers WHERE id IN (SELECT id FROM transfers WHERE state = 'ended' AND ended_at < $1 \
                 AND (purpose = 'move' OR (purpose = 'sync' AND settled_at IS NOT NULL)) LIMIT $2)",
            )
            .bind(before)
            .bind(i64::from(most))
            .execute(connection)
            .await?;
            Ok(done.rows_affected())
        })
    });
    write.await
}

/// What the server that container `$1` is on may keep of its transfers: what came to the container there, and what was sent
/// from there. What a copy on the same server was made from is kept by the copy; what was sent from the server before went
/// with the container.
const HELD: &str = "c.id = $1 AND t.state <> 'ended' AND \
    ((t.container_id = $1 AND (t.state = 'open' OR t.target_server_id = c.server_id)) OR \
    (t.source_container_id = $1 AND t.source_server_id <> t.target_server_id \
    AND (t.state = 'open' OR t.source_server_id = c.server_id)))";

/// The transfers of a container that something is based on and that its server keeps, or that are open: to each target the
/// newest that it keeps, the newest that the container itself keeps, and all open ones with what they are the difference
/// from. The oldest are left out where there are more than `most`.
pub async fn in_use<'e>(
    queries: impl super::Queries<'e>,
    container: ContainerId,
    most: usize,
) -> Result<Vec<TransferId>, StoreError> {
    let sql = format!(
        "SELECT t.id, t.container_id, t.target_server_id, t.source_container_id, t.source_server_id, t.snapshot_id, \
         t.base_id, t.state FROM transfers t, containers c WHERE {HELD} ORDER BY t.created_at DESC, t.id DESC"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(container.to_string()).fetch_all(queries).await?;
    let mut used = Vec::new();
    let (mut named, mut targets) = (HashSet::new(), HashSet::new());
    for row in rows {
        let transfer = from_row(&row)?;
        let open = row.try_get::<String, _>("state")? == "open";
        if open || targets.insert((transfer.container, transfer.source_container)) {
            let based = transfer.base.filter(|_| open);
            used.extend([transfer.id].into_iter().chain(based).filter(|id| named.insert(*id)));
        }
    }
    used.truncate(most);
    Ok(used)
}

/// The newest transfer that the container keeps, those by which it moved left out; with `from`, of those that came from that container.
pub async fn newest_kept<'e>(
    queries: impl super::Queries<'e>,
    container: ContainerId,
    from: Option<ContainerId>,
) -> Result<Option<Transfer>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM transfers WHERE container_id = $1 AND ($2 = '' OR source_container_id = $2) \
         AND state = 'kept' AND purpose <> 'move' ORDER BY created_at DESC, id DESC LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(container.to_string())
        .bind(from.map_or_else(String::new, |from| from.to_string()))
        .fetch_optional(queries)
        .await?;
    row.as_ref().map(from_row).transpose()
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
