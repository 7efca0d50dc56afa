//! Containers.

use super::StoreError;
use hoody_protocol::{container::ContainerSpec, id::ContainerId};
use sqlx::{AnyConnection, Row};

/// Removes a container whose node confirmed that nothing of it is left, and gives back what it had
/// reserved of its server.
pub async fn purge(connection: &mut AnyConnection, container: ContainerId) -> Result<(), StoreError> {
    let row = sqlx::query("DELETE FROM containers WHERE id = $1 RETURNING server_id, spec")
        .bind(container.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(()) };
    let spec: ContainerSpec = serde_json::from_str(row.try_get("spec")?)
        .map_err(|error| StoreError::Corrupt { what: "containers.spec", source: Box::new(error) })?;
    sqlx::query(
        "UPDATE servers SET cpu_millis_used = cpu_millis_used - $2, memory_bytes_used = memory_bytes_used - $3, \
         disk_bytes_used = disk_bytes_used - $4, containers_used = containers_used - 1 WHERE id = $1",
    )
    .bind(row.try_get::<String, _>("server_id")?)
    .bind(i64::from(spec.limits.cpu_millis))
    .bind(spec.limits.memory_bytes as i64)
    .bind(spec.limits.disk_bytes as i64)
    .execute(connection)
    .await?;
    Ok(())
}
