//! What a node does not have yet: specifications it did not acknowledge, and open operations.

use super::{Store, StoreError, departure, operation as operations};
use hoody_protocol::{
    container::{Cause, ContainerSpec},
    id::{ContainerId, OperationId, ServerId},
    link::InventoryEntry,
    operation::{OperationKind, OperationOutcome, OperationRequest},
    version::SpecVersion,
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::collections::HashMap;

/// Containers with work, read at once.
const MAX_READ: i64 = 8192;

/// What has no image yet is not sent: see [`super::image_pull`].
const UNACKED: &str = "(acked_epoch < epoch OR (acked_epoch = epoch AND acked_generation < generation)) \
     AND NOT EXISTS (SELECT 1 FROM image_pulls WHERE image_pulls.container_id = containers.id)";

/// An operation that the node may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOperation {
    /// What is sent; `begin_within_ms` is still to be computed.
    pub request: OperationRequest,
    /// Not begun by then: never runs. Milliseconds, our clock.
    pub begin_before: i64,
    /// True where it was sent on some link before.
    pub dispatched: bool,
}

/// What one container's node does not have, in the order in which it must be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A specification.
    Spec {
        /// What it says, but for the credentials of its upstream proxy.
        spec: Box<ContainerSpec>,
        /// Those, sealed; empty: none.
        sealed: String,
    },
    /// An operation.
    Operation(OpenOperation),
}

impl Item {
    /// Position in the container's one order.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Spec { spec, .. } => spec.sequence,
            Self::Operation(operation) => operation.request.sequence,
        }
    }
}

/// Containers of `server` for which there may be something to send.
pub async fn containers_with_work(store: &Store, server: ServerId) -> Result<Vec<ContainerId>, StoreError> {
    let sql = format!(
        "SELECT id FROM containers WHERE server_id = $1 AND {UNACKED} UNION \
         SELECT container_id AS id FROM operations WHERE server_id = $1 AND state IN ('pending', 'dispatched') UNION \
         SELECT container_id AS id FROM departures WHERE server_id = $1 AND acked = 0 \
         ORDER BY id LIMIT $2"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(server.to_string())
        .bind(MAX_READ)
        .fetch_all(store.reader())
        .await?
        .iter()
        .map(|row| container_id(row, "id"))
        .collect()
}

/// Servers for which there is something that was never sent.
pub async fn servers_with_work(store: &Store) -> Result<Vec<ServerId>, StoreError> {
    let sql = format!(
        "SELECT server_id FROM containers WHERE {UNACKED} UNION \
         SELECT server_id FROM operations WHERE state = 'pending' UNION \
         SELECT server_id FROM departures WHERE acked = 0 UNION \
         SELECT server_id FROM command_executions \
         WHERE state = 'pending' OR (state = 'dispatched' AND cancel_requested = 1)"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(store.reader())
        .await?
        .iter()
        .map(|row| {
            let text: String = row.try_get("server_id")?;
            text.parse().map_err(|error| StoreError::Corrupt { what: "containers.server_id", source: Box::new(error) })
        })
        .collect()
}

/// What the node of `container` does not have, in sequence.
pub async fn items(store: &Store, server: ServerId, container: ContainerId) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::new();
    let sql = format!("SELECT spec, egress_credentials FROM containers WHERE id = $1 AND server_id = $2 AND {UNACKED}");
    let spec = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(container.to_string())
        .bind(server.to_string())
        .fetch_optional(store.reader())
        .await?;
    if let Some(row) = spec {
        let spec = Box::new(json(&row, "spec", "containers.spec")?);
        items.push(Item::Spec { spec, sealed: row.try_get("egress_credentials")? });
    }
    if let Some(tombstone) = departure::unsent(store, server, container).await? {
        items.push(Item::Spec { spec: Box::new(tombstone), sealed: String::new() });
    }
    let operations = sqlx::query(
        "SELECT id, sequence, kind, state, begin_before FROM operations \
         WHERE container_id = $1 AND server_id = $2 AND state IN ('pending', 'dispatched') ORDER BY sequence",
    )
    .bind(container.to_string())
    .bind(server.to_string())
    .fetch_all(store.reader())
    .await?;
    for row in &operations {
        items.push(Item::Operation(operation(row, container)?));
    }
    items.sort_by_key(Item::sequence);
    Ok(items)
}

fn operation(row: &AnyRow, container: ContainerId) -> Result<OpenOperation, StoreError> {
    let id: String = row.try_get("id")?;
    let id = id.parse().map_err(|error| StoreError::Corrupt { what: "operations.id", source: Box::new(error) })?;
    let kind: OperationKind = json(row, "kind", "operations.kind")?;
    let sequence = row.try_get::<i64, _>("sequence")? as u64;
    Ok(OpenOperation {
        request: OperationRequest { id, container, sequence, begin_within_ms: 0, kind },
        begin_before: row.try_get("begin_before")?,
        dispatched: row.try_get::<String, _>("state")? == "dispatched",
    })
}

fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str, what: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| StoreError::Corrupt { what, source: Box::new(error) })
}

fn container_id(row: &AnyRow, column: &str) -> Result<ContainerId, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|error| StoreError::Corrupt { what: "containers.id", source: Box::new(error) })
}

/// The node said that it persisted `held`. Never lowers what it said before.
pub async fn acknowledge(
    connection: &mut AnyConnection,
    server: ServerId,
    container: ContainerId,
    held: SpecVersion,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "UPDATE containers SET acked_epoch = $3, acked_generation = $4 WHERE id = $1 AND server_id = $2 \
         AND (acked_epoch < $3 OR (acked_epoch = $3 AND acked_generation < $4))",
    )
    .bind(container.to_string())
    .bind(server.to_string())
    .bind(signed(held.epoch))
    .bind(signed(held.generation))
    .execute(&mut *connection)
    .await?;
    match done.rows_affected() {
        0 => departure::acknowledge(connection, server, container, held).await,
        _ => Ok(()),
    }
}

/// What an inventory differs in from what the store expects of the node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Containers that the node holds and the store does not know, or knows as another node's.
    pub unknown: Vec<InventoryEntry>,
    /// Containers of which the node holds a newer specification than the store: the database was restored.
    pub ahead: Vec<(ContainerId, SpecVersion)>,
    /// Containers that will be sent again, because the node lost what it had acknowledged.
    pub lost: usize,
}

/// Sets what the node holds to what its inventory says, so that exactly the differences are sent.
pub async fn reconcile_inventory(
    connection: &mut AnyConnection,
    server: ServerId,
    inventory: &[InventoryEntry],
) -> Result<Difference, StoreError> {
    let mut held: HashMap<ContainerId, &InventoryEntry> =
        inventory.iter().map(|entry| (entry.container, entry)).collect();
    let mut difference = Difference::default();
    let rows = sqlx::query(
        "SELECT id, epoch, generation, acked_epoch, acked_generation FROM containers WHERE server_id = $1 ORDER BY id",
    )
    .bind(server.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let container = container_id(row, "id")?;
        let version = |epoch: &str, generation: &str| -> Result<SpecVersion, StoreError> {
            let part = |column: &str| row.try_get::<i64, _>(column).map(|number| number.max(0) as u64);
            Ok(SpecVersion { epoch: part(epoch)?, generation: part(generation)? })
        };
        let (ours, acked) = (version("epoch", "generation")?, version("acked_epoch", "acked_generation")?);
        let holds = held.remove(&container).map_or(SpecVersion::default(), |entry| entry.version);
        if holds > ours {
            difference.ahead.push((container, holds));
        }
        if holds == acked {
            continue;
        }
        if holds < acked {
            difference.lost += 1;
        }
        sqlx::query("UPDATE containers SET acked_epoch = $2, acked_generation = $3 WHERE id = $1")
            .bind(container.to_string())
            .bind(signed(holds.epoch))
            .bind(signed(holds.generation))
            .execute(&mut *connection)
            .await?;
    }
    departure::reconcile(connection, server, &mut held).await?;
    difference.unknown = held.into_values().copied().collect();
    difference.unknown.sort_by_key(|entry| entry.container);
    Ok(difference)
}

/// Marks an operation as sent; false where it ended or its time passed meanwhile.
pub async fn mark_dispatched(store: &Store, operation: OperationId, now: i64) -> Result<bool, StoreError> {
    let write = store.write(move |connection| {
        Box::pin(async move {
            let done = sqlx::query(
                "UPDATE operations SET state = 'dispatched' WHERE id = $1 AND state = 'pending' AND begin_before > $2",
            )
            .bind(operation.to_string())
            .bind(now)
            .execute(connection)
            .await?;
            Ok(done.rows_affected() == 1)
        })
    });
    write.await
}

/// Ends an operation that was never sent and whose time has passed.
pub async fn expire(store: &Store, id: OperationId, cause: &Cause, now: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    operations::lock_container(&mut tx, id).await?;
    let row = sqlx::query(
        "UPDATE operations SET state = 'expired', failure = $2, finished_at = $3 \
         WHERE id = $1 AND state = 'pending' AND begin_before <= $3 RETURNING id, container_id, user_id, kind, state",
    )
    .bind(id.to_string())
    .bind(cause_json(cause)?)
    .bind(now)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(row) = &row {
        operations::record(&mut tx, row, Some(cause), None, now).await?;
    }
    tx.commit().await?;
    Ok(row.is_some())
}

/// Writes down how an operation ended; the first outcome counts. False where it had one, or is none of
/// this server's.
pub async fn record_outcome(
    connection: &mut AnyConnection,
    server: ServerId,
    outcome: &OperationOutcome,
    now: i64,
) -> Result<bool, StoreError> {
    let failure = outcome.failure.as_ref().map(cause_json).transpose()?;
    let row = sqlx::query(
        "UPDATE operations SET state = $4, failure = $5, finished_at = $6 \
         WHERE id = $1 AND container_id = $2 AND server_id = $3 AND state IN ('pending', 'dispatched') \
         RETURNING id, container_id, user_id, kind, state",
    )
    .bind(outcome.id.to_string())
    .bind(outcome.container.to_string())
    .bind(server.to_string())
    .bind(if outcome.failure.is_some() { "failed" } else { "succeeded" })
    .bind(failure)
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(false) };
    operations::record(connection, &row, outcome.failure.as_ref(), outcome.bytes, now).await?;
    Ok(true)
}

/// Containers of this server.
pub async fn containers_of(store: &Store, server: ServerId) -> Result<Vec<ContainerId>, StoreError> {
    sqlx::query("SELECT id FROM containers WHERE server_id = $1")
        .bind(server.to_string())
        .fetch_all(store.reader())
        .await?
        .iter()
        .map(|row| container_id(row, "id"))
        .collect()
}

fn cause_json(cause: &Cause) -> Result<String, StoreError> {
    serde_json::to_string(cause)
        .map_err(|error| StoreError::Corrupt { what: "operations.failure", source: Box::new(error) })
}

/// The database counts in signed numbers; what a hostile node overstates is cut.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
