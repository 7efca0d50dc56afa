//! What is told of a move: an entry of the container's status log, whose status before and after are the same, and an
//! event. The contract has no kind for moves: they are updates of their container.

use super::{
    StoreError,
    container::ContainerRow,
    event,
    moves::{Move, State},
    status_log,
};
use crate::event::{Actor, EventKind, container::Identity};
use serde_json::json;
use sqlx::AnyConnection;

/// Tells how far the move is; `owned` is its container, which is locked.
pub async fn tell(
    connection: &mut AnyConnection,
    owned: &ContainerRow,
    now: &Move,
    by_user: bool,
    at: i64,
) -> Result<(), StoreError> {
    let word = match now.state {
        State::Copying => "started",
        State::Done => "succeeded",
        State::Failed => "failed",
        State::Starting => "switched",
        other => other.as_str(),
    };
    let mut told = json!({
        "operation": "move",
        "move": word,
        "move_id": now.id.to_string(),
        "source_server_id": now.source.to_string(),
        "target_server_id": now.target.map(|target| target.to_string()),
        "bytes": now.bytes,
    });
    if let Some(pause) = now.pause_ms {
        told["pause_ms"] = json!(pause);
    }
    if let Some(cause) = &now.failure {
        told["cause"] = json!(cause);
    }
    let (trigger, actor) = match now.user.filter(|_| by_user) {
        Some(user) => (status_log::Trigger::User(user), Actor::User(user)),
        None => (status_log::Trigger::System, Actor::System),
    };
    let status = owned.status.as_str();
    let entry = status_log::Entry {
        container: owned.spec.id,
        from: Some(status),
        to: status,
        trigger,
        metadata: Some(told.to_string()),
        duration_ms: None,
        at,
    };
    status_log::add(connection, entry).await?;
    let told = Identity::of(owned)
        .event(EventKind::ContainerResourceUpdated, actor)
        .with("changed", vec!["server_id"])
        .with("move", told);
    event::insert(connection, &told).await?;
    Ok(())
}
