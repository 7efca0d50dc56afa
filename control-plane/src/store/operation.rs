//! Operations: persisted before dispatch, one outcome each. `pending → dispatched → succeeded | failed`,
//! or `pending → expired`; each step is one conditional update, so that dispatch and expiry cannot both
//! win. Dispatch and outcomes are in [`super::dispatch`].

use super::{Queries, Store, StoreError, container, event, idempotency, snapshot, sync};
use crate::event::{Actor, EventKind, container::Identity};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, OperationId, ServerId, UserId},
    operation::OperationKind,
};
use serde::Deserialize;
use sqlx::{AnyConnection, Row, any::AnyRow};

/// Stands for whoever asked where nobody did.
const HOUSEKEEPING: &str = "system";

/// Where an operation is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not sent yet.
    Pending,
    /// Sent to the node.
    Dispatched,
    /// Done.
    Succeeded,
    /// The node refused or failed.
    Failed(Cause),
    /// Never ran and never will.
    Expired(Cause),
}

/// An operation to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// Identity.
    pub id: OperationId,
    /// The container.
    pub container: ContainerId,
    /// Its server.
    pub server: ServerId,
    /// Who asked; `None`: housekeeping.
    pub user: Option<UserId>,
    /// Position in the container's one order of specifications and operations.
    pub sequence: u64,
    /// What to do.
    pub kind: OperationKind,
    /// When it was asked for.
    pub created_at: i64,
    /// Not begun by then: never runs.
    pub begin_before: i64,
    /// Set where it ends before it began.
    pub expired: Option<Cause>,
}

/// Writes an operation down.
pub async fn insert(connection: &mut AnyConnection, operation: &NewOperation) -> Result<(), StoreError> {
    idempotency::note(connection, "operation", &operation.id.to_string()).await?;
    let expired = operation.expired.is_some();
    sqlx::query(
        "INSERT INTO operations (id, container_id, server_id, user_id, sequence, kind, state, failure, created_at, \
         begin_before, finished_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(operation.id.to_string())
    .bind(operation.container.to_string())
    .bind(operation.server.to_string())
    .bind(operation.user.map_or_else(|| HOUSEKEEPING.to_owned(), |user| user.to_string()))
    .bind(operation.sequence as i64)
    .bind(text(&operation.kind)?)
    .bind(if expired { "expired" } else { "pending" })
    .bind(operation.expired.as_ref().map(text).transpose()?)
    .bind(operation.created_at)
    .bind(operation.begin_before)
    .bind(expired.then_some(operation.created_at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Where the operation is; `None` where its container is gone, and it with it.
pub async fn state(store: &Store, id: OperationId) -> Result<Option<State>, StoreError> {
    let row = sqlx::query("SELECT state, failure FROM operations WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(store.reader())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let cause = || -> Result<Cause, StoreError> {
        let text: Option<String> = row.try_get("failure")?;
        match text {
            None => Ok(Cause::new("unknown", "no cause was given")),
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| StoreError::Corrupt { what: "operations.failure", source: Box::new(error) }),
        }
    };
    let word: String = row.try_get("state")?;
    Ok(Some(match word.as_str() {
        "pending" => State::Pending,
        "dispatched" => State::Dispatched,
        "succeeded" => State::Succeeded,
        "failed" => State::Failed(cause()?),
        "expired" => State::Expired(cause()?),
        _ => return Err(StoreError::Corrupt { what: "operations.state", source: word.into() }),
    }))
}

/// Ends an operation that was not sent; false where it was sent or has ended, and nothing changed.
pub async fn expire(
    connection: &mut AnyConnection,
    id: OperationId,
    cause: &Cause,
    now: i64,
) -> Result<bool, StoreError> {
    lock_container(connection, id).await?;
    let row = sqlx::query(
        "UPDATE operations SET state = 'expired', failure = $2, finished_at = $3 WHERE id = $1 AND state = 'pending' \
         RETURNING id, container_id, user_id, kind, state",
    )
    .bind(id.to_string())
    .bind(text(cause)?)
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(false) };
    record(connection, &row, Some(cause), None, now).await?;
    Ok(true)
}

/// Locks the operation's container, whose event its end will be.
pub(super) async fn lock_container(connection: &mut AnyConnection, id: OperationId) -> Result<(), StoreError> {
    let found: Option<String> = sqlx::query_scalar("SELECT container_id FROM operations WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(found) = found {
        container::lock(connection, found.parse().map_err(corrupt("operations.container_id"))?).await?;
    }
    Ok(())
}

/// How an operation ended.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    /// What it was.
    pub(super) kind: OperationKind,
    /// Why it was not done.
    pub(super) failure: Option<&'a Cause>,
    /// Bytes of a snapshot that was taken.
    pub(super) bytes: Option<u64>,
    /// When this was written down.
    pub(super) at: i64,
}

/// Settles what the operation was about and writes the event of its end; `row` has its `id`, `container_id`,
/// `user_id`, `kind` and `state`. The contract has no kinds for operations themselves: they are updates of their
/// container.
pub(super) async fn record(
    connection: &mut AnyConnection,
    row: &AnyRow,
    failure: Option<&Cause>,
    bytes: Option<u64>,
    at: i64,
) -> Result<(), StoreError> {
    let column = |name: &str| row.try_get::<String, _>(name);
    let container: ContainerId = column("container_id")?.parse().map_err(corrupt("operations.container_id"))?;
    // The caller has locked it already: containers before operations, everywhere.
    let Some(owned) = container::lock(connection, container).await? else { return Ok(()) };
    let actor = column("user_id")?.parse().map_or(Actor::System, Actor::User);
    let kind: serde_json::Value = serde_json::from_str(&column("kind")?).map_err(corrupt("operations.kind"))?;
    let parsed = OperationKind::deserialize(&kind).map_err(corrupt("operations.kind"))?;
    let ended = Ended { kind: parsed, failure, bytes, at };
    let settled = match snapshot::settle(connection, &owned, actor, &ended).await? {
        None => sync::settle(connection, &owned, actor, &ended).await?,
        settled => settled,
    };
    let told = settled.unwrap_or_else(|| Identity::of(&owned).event(EventKind::ContainerResourceUpdated, actor));
    let mut told =
        told.with("operation_id", column("id")?).with("operation", kind).with("operation_state", column("state")?);
    if let Some(cause) = failure {
        told = told.with("cause", serde_json::to_value(cause).map_err(corrupt("events.payload"))?);
    }
    event::insert(connection, &told).await?;
    Ok(())
}

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

/// Ends every operation of a container that was not sent.
pub async fn expire_all(
    connection: &mut AnyConnection,
    container: ContainerId,
    cause: &Cause,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE operations SET state = 'expired', failure = $2, finished_at = $3 \
         WHERE container_id = $1 AND state = 'pending'",
    )
    .bind(container.to_string())
    .bind(text(cause)?)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends every operation of a container that was not sent, as [`expire`] does.
pub async fn expire_unsent(
    connection: &mut AnyConnection,
    container: ContainerId,
    cause: &Cause,
    now: i64,
) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "UPDATE operations SET state = 'expired', failure = $2, finished_at = $3 \
         WHERE container_id = $1 AND state = 'pending' RETURNING id, container_id, user_id, kind, state",
    )
    .bind(container.to_string())
    .bind(text(cause)?)
    .bind(now)
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        record(connection, &row, Some(cause), None, now).await?;
    }
    Ok(())
}

/// True while an operation of the container has not ended.
pub async fn is_under_way<'e>(queries: impl Queries<'e>, container: ContainerId) -> Result<bool, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM operations \
        WHERE container_id = $1 AND state IN ('pending', 'dispatched')";
    let count: i64 = sqlx::query_scalar(sql).bind(container.to_string()).fetch_one(queries).await?;
    Ok(count > 0)
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt { what: "operations", source: Box::new(error) })
}
