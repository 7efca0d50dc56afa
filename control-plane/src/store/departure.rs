//! What servers still hold of containers that moved away. A departure is a tombstone that is sent as those of deleted
//! containers are; when the server has confirmed it, it is gone, and so is what the container had reserved there.

use super::{Store, StoreError, reservation};
use hoody_protocol::{
    container::{ContainerSpec, State, StatusReport},
    id::{ContainerId, ServerId},
    link::InventoryEntry,
    version::SpecVersion,
};
use sqlx::{AnyConnection, Row};
use std::collections::HashMap;

fn parse(text: &str) -> Result<ContainerSpec, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { what: "departures.spec", source: Box::new(error) })
}

/// Writes down that the server is to delete what it holds of the container.
pub async fn insert(
    connection: &mut AnyConnection,
    server: ServerId,
    tombstone: &ContainerSpec,
    now: i64,
) -> Result<(), StoreError> {
    let text = serde_json::to_string(tombstone)
        .map_err(|error| StoreError::Corrupt { what: "departures.spec", source: Box::new(error) })?;
    sqlx::query("INSERT INTO departures (server_id, container_id, spec, created_at) VALUES ($1, $2, $3, $4)")
        .bind(server.to_string())
        .bind(tombstone.id.to_string())
        .bind(text)
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// True where the server still holds something of the container.
pub async fn is_open(
    connection: &mut AnyConnection,
    server: ServerId,
    container: ContainerId,
) -> Result<bool, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM departures WHERE server_id = $1 AND container_id = $2";
    let count: i64 =
        sqlx::query_scalar(sql).bind(server.to_string()).bind(container.to_string()).fetch_one(connection).await?;
    Ok(count > 0)
}

/// The tombstone, where the server has not said that it has it. Not before the container is seen on its new server: until
/// then what this one holds is the only other copy.
pub(super) async fn unsent(
    store: &Store,
    server: ServerId,
    container: ContainerId,
) -> Result<Option<ContainerSpec>, StoreError> {
    let sql = "SELECT spec FROM departures WHERE server_id = $1 AND container_id = $2 AND acked = 0 AND NOT EXISTS \
        (SELECT 1 FROM moves WHERE moves.container_id = $2 AND moves.source_server_id = $1 AND moves.ended_at IS NULL)";
    let found: Option<String> = sqlx::query_scalar(sql)
        .bind(server.to_string())
        .bind(container.to_string())
        .fetch_optional(store.reader())
        .await?;
    found.as_deref().map(parse).transpose()
}

async fn set_acked(
    connection: &mut AnyConnection,
    server: ServerId,
    container: ContainerId,
    acked: bool,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE departures SET acked = $3 WHERE server_id = $1 AND container_id = $2")
        .bind(server.to_string())
        .bind(container.to_string())
        .bind(i64::from(acked))
        .execute(connection)
        .await?;
    Ok(())
}

/// The node said that it persisted `held`.
pub(super) async fn acknowledge(
    connection: &mut AnyConnection,
    server: ServerId,
    container: ContainerId,
    held: SpecVersion,
) -> Result<(), StoreError> {
    let sql = "SELECT spec FROM departures WHERE server_id = $1 AND container_id = $2 AND acked = 0";
    let found: Option<String> = sqlx::query_scalar(sql)
        .bind(server.to_string())
        .bind(container.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    match found.as_deref().map(parse).transpose()? {
        Some(tombstone) if tombstone.version <= held => set_acked(connection, server, container, true).await,
        _ => Ok(()),
    }
}

/// Takes what moved away out of what an inventory names: it is known. What the server holds in an older version, or not
/// at all, is sent its tombstone again: its record may be damaged, and it says once more that all is deleted. What it
/// holds in a newer version came back after what is written here, as after a restored backup: that is not known.
pub(super) async fn reconcile(
    connection: &mut AnyConnection,
    server: ServerId,
    held: &mut HashMap<ContainerId, &InventoryEntry>,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT container_id, spec FROM departures WHERE server_id = $1 ORDER BY container_id")
        .bind(server.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let tombstone = parse(&row.try_get::<String, _>("spec")?)?;
        let entry = held.get(&tombstone.id).copied();
        if entry.is_none_or(|entry| entry.version <= tombstone.version) {
            held.remove(&tombstone.id);
        }
        let has = entry.is_some_and(|entry| entry.version >= tombstone.version);
        set_acked(connection, server, tombstone.id, has).await?;
    }
    Ok(())
}

/// What a server reports of a container that is not its own any more: true where that is so and it has not come back in a
/// newer version; once nothing is left there, what it had reserved is given back.
pub(super) async fn report(
    connection: &mut AnyConnection,
    server: ServerId,
    report: &StatusReport,
) -> Result<bool, StoreError> {
    let sql = "SELECT spec FROM departures WHERE server_id = $1 AND container_id = $2";
    let found: Option<String> = sqlx::query_scalar(sql)
        .bind(server.to_string())
        .bind(report.container.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(tombstone) = found.as_deref().map(parse).transpose()? else { return Ok(false) };
    if report.version > tombstone.version && report.state != State::Deleted {
        return Ok(false);
    }
    if report.state == State::Deleted && report.version >= tombstone.version {
        let done = sqlx::query("DELETE FROM departures WHERE server_id = $1 AND container_id = $2")
            .bind(server.to_string())
            .bind(report.container.to_string())
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 1 {
            reservation::release(connection, server, &tombstone.limits).await?;
        }
    }
    Ok(true)
}
