//! Writing containers. Capacity on the server is reserved before [`insert`] and given back by [`purge`],
//! each in the same transaction.

use super::{ContainerRow, Status, corrupt, json};
use crate::{
    event::{Actor, container::Identity},
    store::{StoreError, event, idempotency, reservation},
};
use hoody_protocol::{
    container::{ContainerSpec, Desired},
    id::{ContainerId, RealmId},
    version::SpecVersion,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, Row};

/// Adds a container.
pub async fn insert(connection: &mut AnyConnection, row: &ContainerRow) -> Result<(), StoreError> {
    let spec = &row.spec;
    sqlx::query(
        "INSERT INTO containers (id, project_id, owner_id, server_id, name, image_name, runtime, realm_ids, spec, \
         generation, epoch, sequence, attributes, status, status_changed_at, created_at, updated_at, \
         egress_credentials, ssh_key_digest) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
    )
    .bind(spec.id.to_string())
    .bind(spec.project.to_string())
    .bind(spec.owner.to_string())
    .bind(row.server.to_string())
    .bind(row.name.clone())
    .bind(row.image_name.clone())
    .bind(row.runtime.clone())
    .bind(text(&row.realm_ids, "containers.realm_ids")?)
    .bind(stored(spec)?)
    .bind(spec.version.generation as i64)
    .bind(spec.version.epoch as i64)
    .bind(row.sequence as i64)
    .bind(text(&row.attributes, "containers.attributes")?)
    .bind(row.status.as_str())
    .bind(row.status_changed_at)
    .bind(row.created_at)
    .bind(row.updated_at)
    .bind(row.egress_credentials.clone())
    .bind(ssh_key_digest(spec))
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes a changed row, provided that the stored version is still `read`; false where it is not, and
/// nothing was written.
pub async fn update(connection: &mut AnyConnection, row: &ContainerRow, read: SpecVersion) -> Result<bool, StoreError> {
    let spec = &row.spec;
    idempotency::note(connection, "container", &spec.id.to_string()).await?;
    let done = sqlx::query(
        "UPDATE containers SET name = $2, realm_ids = $3, spec = $4, generation = $5, epoch = $6, sequence = $7, \
         attributes = $8, status = $9, status_changed_at = $10, deleted_at = $11, updated_at = $12, \
         egress_credentials = $13, ssh_key_digest = $14 WHERE id = $1 AND generation = $15 AND epoch = $16",
    )
    .bind(spec.id.to_string())
    .bind(row.name.clone())
    .bind(text(&row.realm_ids, "containers.realm_ids")?)
    .bind(stored(spec)?)
    .bind(spec.version.generation as i64)
    .bind(spec.version.epoch as i64)
    .bind(row.sequence as i64)
    .bind(text(&row.attributes, "containers.attributes")?)
    .bind(row.status.as_str())
    .bind(row.status_changed_at)
    .bind(row.deleted_at)
    .bind(row.updated_at)
    .bind(row.egress_credentials.clone())
    .bind(ssh_key_digest(spec))
    .bind(read.generation as i64)
    .bind(read.epoch as i64)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes the container, which was just written, that of `row.server`: what the server before acknowledged and reported does
/// not count there.
pub async fn relocate(connection: &mut AnyConnection, row: &ContainerRow) -> Result<(), StoreError> {
    let sql =
        "UPDATE containers SET server_id = $2, acked_epoch = 0, acked_generation = 0, report = NULL WHERE id = $1";
    sqlx::query(sql).bind(row.spec.id.to_string()).bind(row.server.to_string()).execute(connection).await?;
    Ok(())
}

/// Removes a container of which nothing is left on its server, with its status log and operations, and
/// gives back what it had reserved there. Where it is gone already, nothing is given back again; true
/// where there was one.
pub async fn purge(connection: &mut AnyConnection, container: ContainerId) -> Result<bool, StoreError> {
    let row = sqlx::query("DELETE FROM containers WHERE id = $1 RETURNING server_id, spec, name, realm_ids, status")
        .bind(container.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(false) };
    let server: String = row.try_get("server_id")?;
    let server = server.parse().map_err(|error| corrupt("containers.server_id", error))?;
    let spec: ContainerSpec = json(&row.try_get::<String, _>("spec")?, "containers.spec")?;
    let name: String = row.try_get("name")?;
    let realms: Vec<RealmId> = json(&row.try_get::<String, _>("realm_ids")?, "containers.realm_ids")?;
    let from: String = row.try_get("status")?;
    let identity = Identity { id: container, owner: spec.owner, project: spec.project, name: &name, realms: &realms };
    event::insert(connection, &identity.status(Some(&from), Status::Deleted, Actor::System)).await?;
    reservation::release(connection, server, &spec.limits).await?;
    Ok(true)
}

/// The specification as it is stored: without credentials, which are sealed in a column of their own.
fn stored(spec: &ContainerSpec) -> Result<String, StoreError> {
    match &spec.egress {
        Some(egress) if egress.credentials().is_some() => {
            let spec = ContainerSpec { egress: Some(egress.without_credentials()), ..spec.clone() };
            text(&spec, "containers.spec")
        }
        _ => text(spec, "containers.spec"),
    }
}

/// What makes an SSH key unique among its owner's containers: type and body, not the remark. One that is being deleted
/// holds no key any more, however long its server takes.
fn ssh_key_digest(spec: &ContainerSpec) -> Option<String> {
    if spec.desired == Desired::Deleted {
        return None;
    }
    let mut parts = spec.ssh_public_key.as_deref()?.splitn(3, ' ');
    let (kind, body) = (parts.next()?, parts.next()?);
    Some(hex::encode(Sha256::digest(format!("{kind} {body}"))))
}

fn text<T: Serialize>(value: &T, what: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt(what, error))
}
