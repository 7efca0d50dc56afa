//! Every change of a container's status, with who brought it about and how long the status before lasted;
//! each is an event of the record as well.

use super::{
    Store, StoreError,
    container::{ContainerRow, Slice, Status},
    event,
};
use crate::event::{Actor, container::Identity};
use hoody_protocol::id::{ContainerId, StatusLogId, UserId};
use serde_json::Value;
use sqlx::{AnyConnection, Row, any::AnyRow};

/// Who brought a change about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A request of this user.
    User(UserId),
    /// The choice of a server for a request of this user.
    Scheduler(UserId),
    /// Housekeeping.
    System,
    /// A node's report.
    Node,
}

impl Trigger {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Node => "node",
            Self::Scheduler(_) => "scheduler",
            Self::System => "system",
        }
    }

    fn actor(self) -> Actor {
        match self {
            Self::User(user) | Self::Scheduler(user) => Actor::User(user),
            Self::Node => Actor::Node,
            Self::System => Actor::System,
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusLogRow {
    /// Identity.
    pub id: StatusLogId,
    /// The container.
    pub container: ContainerId,
    /// The status before; `None` for the first.
    pub from_status: Option<String>,
    /// The status after.
    pub to_status: String,
    /// Who brought it about: user, node, scheduler or system.
    pub triggered_by: String,
    /// Cause, exit code and the like.
    pub metadata: Option<Value>,
    /// How long the status before lasted.
    pub duration_ms: Option<i64>,
    /// When.
    pub transition_time: i64,
}

/// Changes the status of a row that is about to be written, and logs it; nothing where it has that status.
pub async fn transition(
    connection: &mut AnyConnection,
    row: &mut ContainerRow,
    to: Status,
    trigger: Trigger,
    metadata: Option<Value>,
    now: i64,
) -> Result<(), StoreError> {
    if row.status == to {
        return Ok(());
    }
    let duration = Some((now - row.status_changed_at).max(0));
    let event = Identity::of(row).status(Some(row.status.as_str()), to, trigger.actor());
    event::insert(connection, &event).await?;
    let entry = Entry {
        container: row.spec.id,
        from: Some(row.status.as_str()),
        to: to.as_str(),
        trigger,
        metadata: metadata.map(|value| value.to_string()),
        duration_ms: duration,
        at: now,
    };
    add(connection, entry).await?;
    row.status = to;
    row.status_changed_at = now;
    Ok(())
}

/// Logs the status that a new container begins with.
pub async fn begin(
    connection: &mut AnyConnection,
    row: &ContainerRow,
    trigger: Trigger,
    metadata: Option<Value>,
) -> Result<(), StoreError> {
    event::insert(connection, &Identity::of(row).status(None, row.status, trigger.actor())).await?;
    let entry = Entry {
        container: row.spec.id,
        from: None,
        to: row.status.as_str(),
        trigger,
        metadata: metadata.map(|value| value.to_string()),
        duration_ms: None,
        at: row.created_at,
    };
    add(connection, entry).await
}

/// A row of the log, in the words of the database.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) container: ContainerId,
    pub(super) from: Option<&'a str>,
    pub(super) to: &'a str,
    pub(super) trigger: Trigger,
    /// JSON.
    pub(super) metadata: Option<String>,
    pub(super) duration_ms: Option<i64>,
    pub(super) at: i64,
}

pub(super) async fn add(connection: &mut AnyConnection, entry: Entry<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO status_logs (id, container_id, from_status, to_status, triggered_by, metadata, duration_ms, \
         transition_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(StatusLogId::generate().to_string())
    .bind(entry.container.to_string())
    .bind(entry.from.map(str::to_owned))
    .bind(entry.to.to_owned())
    .bind(entry.trigger.as_str())
    .bind(entry.metadata)
    .bind(entry.duration_ms)
    .bind(entry.at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Changes kept of one container: the newest.
pub const KEPT: i64 = 1000;
/// Rows removed at once.
const PRUNED_AT_ONCE: i64 = 512;

/// Removes what is older than the newest [`KEPT`] changes of the container, so that a node cannot fill the
/// database with changes that it makes up.
pub async fn prune(connection: &mut AnyConnection, container: ContainerId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM status_logs WHERE id IN (SELECT id FROM status_logs WHERE container_id = $1 \
         ORDER BY transition_time DESC, id DESC LIMIT $2 OFFSET $3)",
    )
    .bind(container.to_string())
    .bind(PRUNED_AT_ONCE)
    .bind(KEPT)
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of a container's changes, and how many there are.
pub async fn list(store: &Store, container: ContainerId, slice: Slice) -> Result<(Vec<StatusLogRow>, u64), StoreError> {
    let total: i64 = sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM status_logs WHERE container_id = $1")
        .bind(container.to_string())
        .fetch_one(store.reader())
        .await?;
    let direction = if slice.descending { "DESC" } else { "ASC" };
    // The first change is from no status: the databases disagree about where nothing stands in an order.
    let by = if slice.by == "from_status" { "COALESCE(from_status, '')" } else { slice.by };
    let sql = format!(
        "SELECT id, container_id, from_status, to_status, triggered_by, metadata, duration_ms, transition_time \
         FROM status_logs WHERE container_id = $1 ORDER BY {by} {direction}, transition_time {direction}, \
         id {direction} LIMIT {} OFFSET {}",
        slice.limit, slice.offset
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(container.to_string()).fetch_all(store.reader()).await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total as u64))
}

fn read(row: &AnyRow) -> Result<StatusLogRow, StoreError> {
    let corrupt = |what, source: Box<dyn std::error::Error + Send + Sync>| StoreError::Corrupt { what, source };
    let id: String = row.try_get("id")?;
    let container: String = row.try_get("container_id")?;
    let metadata: Option<String> = row.try_get("metadata")?;
    Ok(StatusLogRow {
        id: id.parse().map_err(|error| corrupt("status_logs.id", Box::new(error)))?,
        container: container.parse().map_err(|error| corrupt("status_logs.container_id", Box::new(error)))?,
        from_status: row.try_get("from_status")?,
        to_status: row.try_get("to_status")?,
        triggered_by: row.try_get("triggered_by")?,
        metadata: metadata
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| corrupt("status_logs.metadata", Box::new(error)))?,
        duration_ms: row.try_get("duration_ms")?,
        transition_time: row.try_get("transition_time")?,
    })
}
