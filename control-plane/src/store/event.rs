//! Events: written in the transaction of the change, published after its commit.
//!
//! Two numbers order them. `position` is given when an event is written; whoever writes holds the lock on
//! the event's subject, so the events of one subject have growing positions in the order of their commits.
//! `sequence` is given by [`publish`], to committed events only, in the order of their positions: a reader
//! who has seen one sequence has seen all below it.

mod list;
mod publish;

pub use list::{Filter, Slice, Stats, delete, delete_before, get, list, replay, stats};
pub use publish::{Bounds, PUBLISHED_CHANNEL, after, bounds, last_sequence, publish};

use super::{StoreError, idempotency};
use crate::event::{Event, NewEvent, UnknownWord};
use hoody_protocol::{id::EventId, time::now_ms};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::sync::atomic::{AtomicI64, Ordering};

/// Positions per millisecond, for the events that one process writes within it.
const POSITIONS_PER_MS: i64 = 1 << 10;
/// Bytes of the largest payload.
const MAX_PAYLOAD_BYTES: usize = 64 << 10;

const COLUMNS: &str = "id, event_type, resource_id, user_id, project_id, container_id, realm_ids, payload, sequence, \
    created_at";

/// Writes an event. The caller has locked or written its subject in the same transaction.
pub async fn insert(connection: &mut AnyConnection, event: &NewEvent) -> Result<EventId, StoreError> {
    idempotency::note(connection, event.kind.resource().as_str(), &event.resource).await?;
    let now = now_ms() as i64;
    let id = EventId::generate();
    let subject = event.subject();
    let mut payload = serde_json::to_string(&event.payload).map_err(corrupt("events.payload"))?;
    if payload.len() > MAX_PAYLOAD_BYTES {
        // Details are a convenience; the resource itself can be read.
        let actor = event.payload.get("actor").cloned().unwrap_or_default();
        payload = serde_json::json!({"actor": actor, "truncated": true}).to_string();
    }
    let realms = serde_json::to_string(&event.realms).map_err(corrupt("events.realm_ids"))?;
    // Later than the subject's last event also where the clock of another replica is ahead.
    sqlx::query(
        "INSERT INTO events (id, event_type, resource_type, resource_id, user_id, project_id, container_id, realm_ids, \
         payload, subject, created_at, position) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, \
         (SELECT CASE WHEN COALESCE(MAX(position), 0) < $12 THEN $12 ELSE MAX(position) + 1 END \
         FROM events WHERE subject = $10))",
    )
    .bind(id.to_string())
    .bind(event.kind.as_str())
    .bind(event.kind.resource().as_str())
    .bind(&event.resource)
    .bind(event.owner.map(|owner| owner.to_string()))
    .bind(event.project.map(|project| project.to_string()))
    .bind(event.container.map(|container| container.to_string()))
    .bind(realms)
    .bind(payload)
    .bind(subject)
    .bind(now)
    .bind(next_position(now))
    .execute(connection)
    .await?;
    Ok(id)
}

/// A position for `now`, larger than any that this process gave before: what one process writes one after the
/// other is delivered in that order also within a millisecond, and across subjects.
fn next_position(now: i64) -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let after = |last: i64| last.saturating_add(1).max(now.saturating_mul(POSITIONS_PER_MS));
    // The closure never refuses.
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last))).map_or(now, after)
}

/// Writes several events, in their order.
pub async fn insert_all(connection: &mut AnyConnection, events: &[NewEvent]) -> Result<(), StoreError> {
    for event in events {
        insert(connection, event).await?;
    }
    Ok(())
}

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn read(row: &AnyRow) -> Result<Event, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    Ok(Event {
        id: text("id")?.parse().map_err(corrupt("events.id"))?,
        kind: text("event_type")?.parse().map_err(corrupt::<UnknownWord>("events.event_type"))?,
        resource: text("resource_id")?,
        owner: optional("user_id")?.map(|id| id.parse()).transpose().map_err(corrupt("events.user_id"))?,
        project: optional("project_id")?.map(|id| id.parse()).transpose().map_err(corrupt("events.project_id"))?,
        container: optional("container_id")?
            .map(|id| id.parse())
            .transpose()
            .map_err(corrupt("events.container_id"))?,
        realms: serde_json::from_str(&text("realm_ids")?).map_err(corrupt("events.realm_ids"))?,
        payload: serde_json::from_str(&text("payload")?).map_err(corrupt("events.payload"))?,
        sequence: row.try_get("sequence")?,
        created_at: row.try_get("created_at")?,
    })
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
