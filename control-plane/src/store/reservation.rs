//! Capacity of servers and of projects. What containers have reserved is only ever changed by one
//! conditional update, so that no race gives out more than there is.

use super::{Queries, Store, StoreError, pool};
use hoody_protocol::{
    container::Limits,
    id::{ProjectId, RealmId, ServerId, UserId},
};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// Reserves `limits` and one container's place on a server that `owner` may use; false where the server has
/// not enough left, is not in service or is not the owner's to use, and nothing was changed.
pub async fn reserve(
    connection: &mut AnyConnection,
    server: ServerId,
    owner: UserId,
    limits: &Limits,
) -> Result<bool, StoreError> {
    let usable = pool::usable("servers", "$2");
    let reserved = sqlx::query(AssertSqlSafe(format!(
        "UPDATE servers SET cpu_millis_used = cpu_millis_used + $3, memory_bytes_used = memory_bytes_used + $4, \
         disk_bytes_used = disk_bytes_used + $5, containers_used = containers_used + 1 \
         WHERE id = $1 AND {usable} AND status = 'enrolled' \
         AND (drain_started_at IS NULL OR drain_stopped_at IS NOT NULL) AND cpu_millis_used + $3 <= cpu_millis \
         AND memory_bytes_used + $4 <= memory_bytes AND disk_bytes_used + $5 <= disk_bytes \
         AND containers_used + 1 <= max_containers RETURNING id"
    )))
    .bind(server.to_string())
    .bind(owner.to_string())
    .bind(i64::from(limits.cpu_millis))
    .bind(bytes(limits.memory_bytes))
    .bind(bytes(limits.disk_bytes))
    .fetch_optional(connection)
    .await?;
    Ok(reserved.is_some())
}

/// Changes what one container has reserved from `before` to `after`; false where the server has not enough
/// left for what is more, and nothing was changed. What is less is always given back.
pub async fn resize(
    connection: &mut AnyConnection,
    server: ServerId,
    before: &Limits,
    after: &Limits,
) -> Result<bool, StoreError> {
    let resized = sqlx::query(
        "UPDATE servers SET cpu_millis_used = cpu_millis_used + $2, memory_bytes_used = memory_bytes_used + $3, \
         disk_bytes_used = disk_bytes_used + $4 \
         WHERE id = $1 AND ($2 <= 0 OR cpu_millis_used + $2 <= cpu_millis) \
         AND ($3 <= 0 OR memory_bytes_used + $3 <= memory_bytes) \
         AND ($4 <= 0 OR disk_bytes_used + $4 <= disk_bytes) RETURNING id",
    )
    .bind(server.to_string())
    .bind(i64::from(after.cpu_millis) - i64::from(before.cpu_millis))
    .bind(bytes(after.memory_bytes) - bytes(before.memory_bytes))
    .bind(bytes(after.disk_bytes) - bytes(before.disk_bytes))
    .fetch_optional(connection)
    .await?;
    Ok(resized.is_some())
}

/// What a server has left to reserve; negative where its capacity shrank below what is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Thousandths of a core.
    pub cpu_millis: i64,
    /// Memory.
    pub memory_bytes: i64,
    /// Disk.
    pub disk_bytes: i64,
}

/// What the server has left, as the transaction sees it.
pub async fn free(connection: &mut AnyConnection, server: ServerId) -> Result<Free, StoreError> {
    let row = sqlx::query(
        "SELECT cpu_millis - cpu_millis_used AS free_cpu, memory_bytes - memory_bytes_used AS free_memory, \
         disk_bytes - disk_bytes_used AS free_disk FROM servers WHERE id = $1",
    )
    .bind(server.to_string())
    .fetch_one(connection)
    .await?;
    Ok(Free {
        cpu_millis: row.try_get("free_cpu")?,
        memory_bytes: row.try_get("free_memory")?,
        disk_bytes: row.try_get("free_disk")?,
    })
}

/// Gives back what [`reserve`] took.
pub async fn release(connection: &mut AnyConnection, server: ServerId, limits: &Limits) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE servers SET cpu_millis_used = cpu_millis_used - $2, memory_bytes_used = memory_bytes_used - $3, \
         disk_bytes_used = disk_bytes_used - $4, containers_used = containers_used - 1 WHERE id = $1",
    )
    .bind(server.to_string())
    .bind(i64::from(limits.cpu_millis))
    .bind(bytes(limits.memory_bytes))
    .bind(bytes(limits.disk_bytes))
    .execute(connection)
    .await?;
    Ok(())
}

/// More than the database can count is more than any server has: the condition then fails.
fn bytes(number: u64) -> i64 {
    // Halved so that adding what is in use cannot overflow.
    i64::try_from(number).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

/// What decides whether a container may be placed on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// The server.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// `created`, `enrolled`, `disabled` or `revoked`.
    pub status: String,
    /// Its node is connected.
    pub online: bool,
    /// Architecture in OCI terms.
    pub architecture: String,
    /// Thousandths of a core that are free.
    pub free_cpu_millis: i64,
    /// Memory that is free.
    pub free_memory_bytes: i64,
    /// Disk that is free.
    pub free_disk_bytes: i64,
    /// Containers that may still be added.
    pub free_containers: i64,
    /// Containers of the project in question that are on it.
    pub project_containers: i64,
    /// The asking owner rents it; otherwise it is another's, in a pool they share.
    pub owned: bool,
    /// Its node can give containers KVM.
    pub kvm: bool,
    /// The highest threshold that its storage pool has passed, percent.
    pub pool_level: i64,
    /// It is being emptied.
    pub draining: bool,
}

/// The servers that `owner` may use, seen from `project`.
pub async fn servers_of<'e>(
    queries: impl Queries<'e>,
    owner: UserId,
    project: ProjectId,
) -> Result<Vec<ServerRow>, StoreError> {
    let usable = pool::usable("s", "$1");
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT s.id, s.name, s.status, s.online, s.architecture, s.cpu_millis - s.cpu_millis_used AS free_cpu, \
         s.memory_bytes - s.memory_bytes_used AS free_memory, s.disk_bytes - s.disk_bytes_used AS free_disk, \
         s.max_containers - s.containers_used AS free_containers, (SELECT CAST(COUNT(*) AS BIGINT) FROM containers c \
         WHERE c.server_id = s.id AND c.project_id = $2) AS project_containers, s.facts, \
         s.pool_level, \
         CAST(CASE WHEN s.drain_started_at IS NOT NULL AND s.drain_stopped_at IS NULL THEN 1 ELSE 0 END AS BIGINT) \
         AS draining, \
         CAST(CASE WHEN s.owner_id = $1 THEN 1 ELSE 0 END AS BIGINT) AS owned \
         FROM servers s WHERE {usable} ORDER BY s.id"
    )))
    .bind(owner.to_string())
    .bind(project.to_string())
    .fetch_all(queries)
    .await?;
    rows.iter().map(server_row).collect()
}

fn server_row(row: &AnyRow) -> Result<ServerRow, StoreError> {
    let id: String = row.try_get("id")?;
    Ok(ServerRow {
        id: id.parse().map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })?,
        name: row.try_get("name")?,
        status: row.try_get("status")?,
        online: row.try_get::<i64, _>("online")? != 0,
        architecture: row.try_get("architecture")?,
        free_cpu_millis: row.try_get("free_cpu")?,
        free_memory_bytes: row.try_get("free_memory")?,
        free_disk_bytes: row.try_get("free_disk")?,
        free_containers: row.try_get("free_containers")?,
        project_containers: row.try_get("project_containers")?,
        owned: row.try_get::<i64, _>("owned")? != 0,
        kvm: super::node::has_kvm(row.try_get("facts")?),
        pool_level: row.try_get("pool_level")?,
        draining: row.try_get::<i64, _>("draining")? != 0,
    })
}

/// What a new container needs to know of its project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRow {
    /// Whose it is.
    pub owner: UserId,
    /// Its name.
    pub alias: String,
    /// The owner's default project.
    pub is_default: bool,
    /// How many containers it may have; `None`: as many as the platform allows.
    pub max_containers: Option<i64>,
    /// The realms it belongs to.
    pub realm_ids: Vec<RealmId>,
}

const PROJECT: &str = "SELECT user_id, alias, is_default, max_containers, realm_ids FROM projects p WHERE p.id = $1";

/// The project with this id.
pub async fn project(store: &Store, project: ProjectId) -> Result<Option<ProjectRow>, StoreError> {
    let row = sqlx::query(PROJECT).bind(project.to_string()).fetch_optional(store.reader()).await?;
    row.as_ref().map(project_row).transpose()
}

/// The project with this id and how many containers it has, tombstones not counted. Until the
/// transaction ends nobody else adds one: whoever adds asks here first.
pub async fn lock_project(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Result<Option<(ProjectRow, i64)>, StoreError> {
    let sql = format!("{PROJECT}{}", super::row_lock(connection, "p"));
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(project.to_string()).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(None) };
    let containers = sqlx::query_scalar(
        "SELECT CAST(COUNT(*) AS BIGINT) FROM containers WHERE project_id = $1 AND deleted_at IS NULL",
    )
    .bind(project.to_string())
    .fetch_one(connection)
    .await?;
    Ok(Some((project_row(&row)?, containers)))
}

fn project_row(row: &AnyRow) -> Result<ProjectRow, StoreError> {
    let owner: String = row.try_get("user_id")?;
    let realms: String = row.try_get("realm_ids")?;
    Ok(ProjectRow {
        owner: owner
            .parse()
            .map_err(|error| StoreError::Corrupt { what: "projects.user_id", source: Box::new(error) })?,
        alias: row.try_get("alias")?,
        is_default: row.try_get::<i64, _>("is_default")? != 0,
        max_containers: row.try_get("max_containers")?,
        realm_ids: serde_json::from_str(&realms)
            .map_err(|error| StoreError::Corrupt { what: "projects.realm_ids", source: Box::new(error) })?,
    })
}

#[cfg(test)]
#[path = "reservation_tests.rs"]
mod tests;
