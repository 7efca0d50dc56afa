//! Syncs: transfers that bring a container up to date which exists, and the operations that put them in place. A sync is
//! under way until it is settled; of one container there is one at a time.

use super::{
    Store, StoreError,
    container::ContainerRow,
    event,
    operation::Ended,
    snapshot, status_log,
    transfer::{self, COLUMNS, Transfer, supersede},
};
use crate::event::{Actor, EventKind, NewEvent, container::Identity};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, OperationId, ServerId, SnapshotId, TransferId, UserId},
    operation::OperationKind,
};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::time::Duration;

/// How long a sync is tried where what it needs is away: nobody expects one hours after asking.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A sync that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// What brings it.
    pub transfer: Transfer,
    /// Who asked.
    pub user: Option<UserId>,
    /// When.
    pub created_at: i64,
}

impl Sync {
    /// Source and target are on one server.
    pub fn is_local(&self) -> bool {
        self.transfer.source == self.transfer.target
    }
}

fn from_row(row: &AnyRow) -> Result<Sync, StoreError> {
    let user: Option<String> = row.try_get("user_id")?;
    Ok(Sync {
        transfer: transfer::from_row(row)?,
        user: user.and_then(|user| user.parse().ok()),
        created_at: row.try_get("created_at")?,
    })
}

/// Writes a sync down, and that it was asked for; `owned` is its container, which is locked.
pub async fn insert(connection: &mut AnyConnection, owned: &ContainerRow, sync: &Sync) -> Result<(), StoreError> {
    transfer::insert(connection, &sync.transfer, sync.created_at).await?;
    sqlx::query("UPDATE transfers SET purpose = 'sync', user_id = $2 WHERE id = $1")
        .bind(sync.transfer.id.to_string())
        .bind(sync.user.map(|user| user.to_string()))
        .execute(&mut *connection)
        .await?;
    let trigger = sync.user.map_or(status_log::Trigger::System, status_log::Trigger::User);
    let actor = sync.user.map_or(Actor::System, Actor::User);
    let told = log(connection, owned, sync.transfer.source_container, Step::Started, trigger, sync.created_at).await?;
    event::insert(connection, &told_of(owned, actor, told)).await?;
    Ok(())
}

/// True while a sync of the container is under way.
pub async fn is_under_way(connection: &mut AnyConnection, container: ContainerId) -> Result<bool, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM transfers \
        WHERE container_id = $1 AND purpose = 'sync' AND settled_at IS NULL";
    let count: i64 = sqlx::query_scalar(sql).bind(container.to_string()).fetch_one(connection).await?;
    Ok(count > 0)
}

/// Syncs of the server's containers whose transfers have to be had, or to be put in place; the oldest first.
pub async fn waiting(store: &Store, server: ServerId) -> Result<Vec<Sync>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, user_id, created_at FROM transfers WHERE target_server_id = $1 AND purpose = 'sync' \
         AND operation_id IS NULL AND settled_at IS NULL AND state IN ('open', 'kept') ORDER BY created_at, id"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(server.to_string()).fetch_all(store.reader()).await?;
    rows.iter().map(from_row).collect()
}

/// Servers that [`waiting`] has something for.
pub async fn servers_waiting(store: &Store) -> Result<Vec<ServerId>, StoreError> {
    let sql = "SELECT DISTINCT target_server_id FROM transfers WHERE purpose = 'sync' AND operation_id IS NULL \
        AND settled_at IS NULL AND state IN ('open', 'kept')";
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(store.reader()).await?;
    let parse = |text: String| {
        let corrupt = |error| StoreError::Corrupt { what: "transfers.target_server_id", source: Box::new(error) };
        text.parse::<ServerId>().map_err(corrupt)
    };
    found.into_iter().map(parse).collect()
}

/// The transfer has to be had whole: what it was to be the difference from is gone.
pub async fn make_whole(connection: &mut AnyConnection, id: TransferId) -> Result<(), StoreError> {
    sqlx::query("UPDATE transfers SET base_id = NULL WHERE id = $1 AND state = 'open'")
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// The transfer is kept, and `operation` puts it in place; false where that was begun, or the sync is over.
pub async fn begin(
    connection: &mut AnyConnection,
    id: TransferId,
    operation: OperationId,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE transfers SET state = 'kept', failure = NULL, ended_at = COALESCE(ended_at, $3), operation_id = $2 \
         WHERE id = $1 AND purpose = 'sync' AND operation_id IS NULL AND settled_at IS NULL \
         AND state IN ('open', 'kept')",
    )
    .bind(id.to_string())
    .bind(operation.to_string())
    .bind(now)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The snapshot is one that a sync takes: the next one's takes its place.
pub async fn mark_snapshot(connection: &mut AnyConnection, id: SnapshotId) -> Result<(), StoreError> {
    sqlx::query("UPDATE snapshots SET before_sync = 1 WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// How many of the container's snapshots were taken by syncs.
pub async fn snapshots(connection: &mut AnyConnection, container: ContainerId) -> Result<usize, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM snapshots WHERE container_id = $1 AND before_sync = 1";
    let count: i64 = sqlx::query_scalar(sql).bind(container.to_string()).fetch_one(connection).await?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Ends a sync whose transfer cannot be had; `owned` is its container, which is locked. Nothing where it is over, or is just
/// being put in place.
pub async fn fail(
    connection: &mut AnyConnection,
    owned: &ContainerRow,
    sync: &Sync,
    cause: &Cause,
    now: i64,
) -> Result<(), StoreError> {
    let id = sync.transfer.id.to_string();
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM transfers \
        WHERE id = $1 AND (settled_at IS NOT NULL OR operation_id IS NOT NULL)";
    let over: i64 = sqlx::query_scalar(sql).bind(id.clone()).fetch_one(&mut *connection).await?;
    // Without its row, the container that it came from was deleted.
    if over > 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE transfers SET state = CASE WHEN state = 'open' THEN 'ended' ELSE state END, failure = $2, \
         ended_at = COALESCE(ended_at, $3), settled_at = $3 WHERE id = $1",
    )
    .bind(id)
    .bind(text(cause)?)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    supersede(connection, sync.transfer.id, now).await?;
    let step = Step::Failed(cause);
    let told = log(connection, owned, sync.transfer.source_container, step, status_log::Trigger::Node, now).await?;
    event::insert(connection, &told_of(owned, Actor::Node, told)).await?;
    Ok(())
}

/// What the end of an operation means for its sync, and the event that tells of it; `None` where it was another.
/// `owned` is the container, which is locked.
pub(super) async fn settle(
    connection: &mut AnyConnection,
    owned: &ContainerRow,
    actor: Actor,
    ended: &Ended<'_>,
) -> Result<Option<NewEvent>, StoreError> {
    let OperationKind::Sync { transfer, snapshot: kept, .. } = ended.kind else { return Ok(None) };
    let (now, container) = (ended.at, owned.spec.id);
    let source: Option<String> = sqlx::query_scalar(
        "UPDATE transfers SET settled_at = $2, failure = $3 WHERE id = $1 AND settled_at IS NULL \
         RETURNING source_container_id",
    )
    .bind(transfer.to_string())
    .bind(now)
    .bind(ended.failure.map(text).transpose()?)
    .fetch_optional(&mut *connection)
    .await?;
    supersede(connection, transfer, now).await?;
    let step = match ended.failure {
        None => {
            let bytes = i64::try_from(ended.bytes.unwrap_or(0)).unwrap_or(i64::MAX);
            sqlx::query("UPDATE snapshots SET state = 'ready', size_bytes = $2 WHERE id = $1 AND state = 'creating'")
                .bind(kept.to_string())
                .bind(bytes)
                .execute(&mut *connection)
                .await?;
            // Those of the syncs before go, in their own time.
            sqlx::query(
                "UPDATE snapshots SET expires_at = $3 WHERE container_id = $1 AND before_sync = 1 AND id <> $2",
            )
            .bind(container.to_string())
            .bind(kept.to_string())
            .bind(now)
            .execute(&mut *connection)
            .await?;
            Step::Succeeded
        }
        Some(cause) => {
            sqlx::query("DELETE FROM snapshots WHERE id = $1 AND state = 'creating'")
                .bind(kept.to_string())
                .execute(&mut *connection)
                .await?;
            Step::Failed(cause)
        }
    };
    snapshot::count(connection, container).await?;
    // The source may be gone by now.
    let source = source.and_then(|source| source.parse().ok()).or(owned.attributes.copied_from);
    let source = source.or(owned.spec.origin.map(|origin| origin.container)).unwrap_or(container);
    let told = log(connection, owned, source, step, status_log::Trigger::Node, now).await?;
    Ok(Some(told_of(owned, actor, told)))
}

/// What is told of a sync.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Started,
    Succeeded,
    Failed(&'a Cause),
}

/// An entry whose status before and after are the same: what the container has is other content. Gives what it says.
async fn log(
    connection: &mut AnyConnection,
    owned: &ContainerRow,
    source: ContainerId,
    step: Step<'_>,
    trigger: status_log::Trigger,
    now: i64,
) -> Result<Value, StoreError> {
    let mut told = json!({"operation": "sync", "source_container": source.to_string(), "sync": match step {
        Step::Started => "started",
        Step::Succeeded => "succeeded",
        Step::Failed(_) => "failed",
    }});
    if let Step::Failed(cause) = step {
        told["cause"] = json!(cause);
    }
    let status = owned.status.as_str();
    let entry = status_log::Entry {
        container: owned.spec.id,
        from: Some(status),
        to: status,
        trigger,
        metadata: Some(told.to_string()),
        duration_ms: None,
        at: now,
    };
    status_log::add(connection, entry).await?;
    Ok(told)
}

/// The contract has no kinds for syncs: they are updates of their container.
fn told_of(owned: &ContainerRow, actor: Actor, told: Value) -> NewEvent {
    let event = Identity::of(owned).event(EventKind::ContainerResourceUpdated, actor);
    event.with("changed", vec!["root_file_system"]).with("sync", told)
}

fn text(cause: &Cause) -> Result<String, StoreError> {
    serde_json::to_string(cause)
        .map_err(|error| StoreError::Corrupt { what: "transfers.failure", source: Box::new(error) })
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
