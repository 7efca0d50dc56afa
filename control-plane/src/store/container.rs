//! Containers: what they should be, what their nodes said, and what only their owners care about.
//!
//! A change happens in one transaction: [`lock`], change the row, [`update`] (conditional on the version
//! that was read), a status log row where the status changes, commit.

mod attributes;
mod list;
mod network;
mod status;
mod write;

pub use attributes::Attributes;
pub use list::{Filter, Slice, list};
pub use network::{NetworkKind, NetworkSettings, NetworkState};
pub use status::{Status, UnknownStatus};
pub use write::{insert, purge, relocate, update};

use super::{
    Store, StoreError,
    image_pull::{self, Pull},
};
use hoody_protocol::{
    container::{ContainerSpec, StatusReport},
    id::{ContainerId, InvalidId, PoolId, RealmId, ServerId, UserId},
};
use serde::de::DeserializeOwned;
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::{collections::BTreeSet, str::FromStr};

/// A container with the parts of its project and server that every answer shows.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRow {
    /// The whole desired state; also holds id, project, owner and version.
    pub spec: ContainerSpec,
    /// The server it is on.
    pub server: ServerId,
    /// Its name, unique among the project's containers.
    pub name: String,
    /// Catalogue name of the image it was made from.
    pub image_name: String,
    /// `lxc` or `docker`.
    pub runtime: String,
    /// The realms it belongs to.
    pub realm_ids: Vec<RealmId>,
    /// What means nothing to the node.
    pub attributes: Attributes,
    /// Credentials of its upstream proxy, sealed for it; empty: none. `spec` never holds them.
    pub egress_credentials: String,
    /// The last position given out in the container's order of specifications and operations.
    pub sequence: u64,
    /// The status word.
    pub status: Status,
    /// Since when.
    pub status_changed_at: i64,
    /// What the node said last.
    pub report: Option<StatusReport>,
    /// When the tombstone was written.
    pub deleted_at: Option<i64>,
    /// When it was created.
    pub created_at: i64,
    /// When it was last changed.
    pub updated_at: i64,
    /// Snapshots of it that can be restored.
    pub snapshot_count: i64,
    /// The name of its snapshot that was restored or copied last.
    pub last_used_snapshot: Option<String>,
    /// Alias of its project.
    pub project_alias: String,
    /// Its project is its owner's default project.
    pub project_is_default: bool,
    /// The server.
    pub server_info: ServerInfo,
    /// The pull of its image, as long as it is not done; until then nothing is sent to the server.
    pub pull: Option<Pull>,
}

/// The parts of a server that a container's answer shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerInfo {
    /// Its name.
    pub name: String,
    /// `created`, `enrolled`, `disabled` or `revoked`.
    pub status: String,
    /// Its node is connected.
    pub online: bool,
    /// Who rents it.
    pub owner: Option<UserId>,
    /// The pool it is in; `None`: its owner's default pool.
    pub pool: Option<PoolId>,
    /// It is given to accounts of the free tier.
    pub is_free: bool,
    /// Its node can give containers KVM.
    pub kvm: bool,
    /// ISO 3166 country code.
    pub country: String,
    /// Region.
    pub region: String,
    /// City.
    pub city: String,
    /// Datacenter.
    pub datacenter: String,
    /// When its rental ends.
    pub rental_end: Option<i64>,
    /// Processor capacity, thousandths of a core.
    pub cpu_millis: i64,
    /// Memory capacity.
    pub memory_bytes: i64,
    /// Disk capacity.
    pub disk_bytes: i64,
}

const SELECT: &str = "SELECT ip.reference AS pull_reference, ip.state AS pull_state, ip.bytes_done AS pull_bytes_done, \
    ip.bytes_total AS pull_bytes_total, ip.failure AS pull_failure, c.spec, c.server_id, c.name, c.image_name, c.runtime, c.realm_ids, c.attributes, c.egress_credentials, \
    c.sequence, c.status, c.status_changed_at, c.report, c.deleted_at, c.created_at, c.updated_at, \
    c.snapshot_count, c.last_used_snapshot, \
    p.alias AS project_alias, p.is_default AS project_is_default, s.name AS server_name, \
    s.status AS server_status, s.online AS server_online, s.country, s.region, s.city, s.datacenter, \
    s.rental_end, s.owner_id AS server_owner, s.pool_id AS server_pool, s.is_free, s.facts AS server_facts, \
    s.cpu_millis, s.memory_bytes, s.disk_bytes \
    FROM containers c JOIN projects p ON p.id = c.project_id JOIN servers s ON s.id = c.server_id \
    LEFT JOIN image_pulls ip ON ip.container_id = c.id";

/// The container with this id.
pub async fn get(store: &Store, id: ContainerId) -> Result<Option<ContainerRow>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE c.id = $1"));
    sqlx::query(sql).bind(id.to_string()).fetch_optional(store.reader()).await?.as_ref().map(read).transpose()
}

/// The container with this id, which nobody else changes before the transaction ends.
pub async fn lock(connection: &mut AnyConnection, id: ContainerId) -> Result<Option<ContainerRow>, StoreError> {
    let sql = format!("{SELECT} WHERE c.id = $1{}", super::row_lock(connection, "c"));
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// Locks the containers with these ids, in the order of the ids; for a transaction that changes several.
pub async fn lock_all(connection: &mut AnyConnection, ids: &BTreeSet<ContainerId>) -> Result<(), StoreError> {
    let lock = super::row_lock(connection, "containers");
    if lock.is_empty() || ids.is_empty() {
        return Ok(());
    }
    let places: Vec<String> = (1..=ids.len()).map(|place| format!("${place}")).collect();
    let sql = format!("SELECT id FROM containers WHERE id IN ({}) ORDER BY id{lock}", places.join(", "));
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for id in ids {
        query = query.bind(id.to_string());
    }
    query.fetch_all(connection).await?;
    Ok(())
}

fn read(row: &AnyRow) -> Result<ContainerRow, StoreError> {
    let status: String = row.try_get("status")?;
    let server: String = row.try_get("server_id")?;
    let report: Option<String> = row.try_get("report")?;
    Ok(ContainerRow {
        spec: json(&row.try_get::<String, _>("spec")?, "containers.spec")?,
        server: server.parse().map_err(|error| corrupt("containers.server_id", error))?,
        name: row.try_get("name")?,
        image_name: row.try_get("image_name")?,
        runtime: row.try_get("runtime")?,
        realm_ids: json(&row.try_get::<String, _>("realm_ids")?, "containers.realm_ids")?,
        attributes: json(&row.try_get::<String, _>("attributes")?, "containers.attributes")?,
        egress_credentials: row.try_get("egress_credentials")?,
        sequence: u64::try_from(row.try_get::<i64, _>("sequence")?)
            .map_err(|error| corrupt("containers.sequence", error))?,
        status: status.parse().map_err(|error: UnknownStatus| corrupt("containers.status", error))?,
        status_changed_at: row.try_get("status_changed_at")?,
        report: report.as_deref().map(|text| json(text, "containers.report")).transpose()?,
        deleted_at: row.try_get("deleted_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        snapshot_count: row.try_get("snapshot_count")?,
        last_used_snapshot: row.try_get("last_used_snapshot")?,
        project_alias: row.try_get("project_alias")?,
        project_is_default: row.try_get::<i64, _>("project_is_default")? != 0,
        server_info: ServerInfo {
            name: row.try_get("server_name")?,
            status: row.try_get("server_status")?,
            online: row.try_get::<i64, _>("server_online")? != 0,
            owner: optional_id(row, "server_owner")?,
            pool: optional_id(row, "server_pool")?,
            is_free: row.try_get::<i64, _>("is_free")? != 0,
            kvm: super::node::has_kvm(row.try_get("server_facts")?),
            country: row.try_get("country")?,
            region: row.try_get("region")?,
            city: row.try_get("city")?,
            datacenter: row.try_get("datacenter")?,
            rental_end: row.try_get("rental_end")?,
            cpu_millis: row.try_get("cpu_millis")?,
            memory_bytes: row.try_get("memory_bytes")?,
            disk_bytes: row.try_get("disk_bytes")?,
        },
        pull: image_pull::of_row(row)?,
    })
}

fn optional_id<T: FromStr<Err = InvalidId>>(row: &AnyRow, column: &'static str) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|error| corrupt(column, error))).transpose()
}

fn json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(what, error))
}

fn corrupt(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Corrupt { what, source: Box::new(source) }
}

#[cfg(test)]
#[path = "container_tests.rs"]
pub(crate) mod tests;
