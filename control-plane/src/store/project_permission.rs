//! What users other than the owner may do in a project.

use super::{Queries, Store, StoreError};
use crate::{
    access::Level,
    page::{Order, Page},
};
use hoody_protocol::{
    id::{ProjectId, ProjectPermissionId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use std::collections::HashMap;

/// One user's permission in one project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectPermission {
    /// Its id.
    pub id: ProjectPermissionId,
    /// The project.
    pub project: ProjectId,
    /// Whose permission.
    pub user: UserId,
    /// The user's login name.
    pub username: String,
    /// The user's name for people.
    pub user_alias: String,
    /// How far it goes.
    pub level: Level,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

/// Fields that a list can be sorted by; also the columns' names.
pub const SORTABLE: &[&str] = &["id", "user_id", "permission_level", "created_at", "updated_at"];

const SELECT: &str = "SELECT p.id, p.project_id, p.user_id, p.permission_level, p.created_at, p.updated_at, \
    u.username, u.alias AS user_alias FROM project_permissions p JOIN users u ON u.id = p.user_id";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn level_of(text: &str) -> Result<Level, StoreError> {
    text.parse().map_err(corrupt("project_permissions.permission_level"))
}

fn read(row: &AnyRow) -> Result<ProjectPermission, StoreError> {
    Ok(ProjectPermission {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("project_permissions.id"))?,
        project: row.try_get::<String, _>("project_id")?.parse().map_err(corrupt("project_permissions.project_id"))?,
        user: row.try_get::<String, _>("user_id")?.parse().map_err(corrupt("project_permissions.user_id"))?,
        username: row.try_get("username")?,
        user_alias: row.try_get("user_alias")?,
        level: level_of(&row.try_get::<String, _>("permission_level")?)?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// How far the user's permission in the project goes; `None`: there is none.
pub async fn level<'e>(
    queries: impl Queries<'e>,
    project: ProjectId,
    user: UserId,
) -> Result<Option<Level>, StoreError> {
    let level: Option<String> =
        sqlx::query_scalar("SELECT permission_level FROM project_permissions WHERE project_id = $1 AND user_id = $2")
            .bind(project.to_string())
            .bind(user.to_string())
            .fetch_optional(queries)
            .await?;
    level.as_deref().map(level_of).transpose()
}

/// The newest projects that are shared with the user.
pub async fn shared_with(store: &Store, user: UserId, limit: u32) -> Result<Vec<ProjectId>, StoreError> {
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT project_id FROM project_permissions WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
    )
    .bind(user.to_string())
    .bind(i64::from(limit))
    .fetch_all(store.reader())
    .await?;
    found.iter().map(|id| id.parse().map_err(corrupt("project_permissions.project_id"))).collect()
}

/// With whom each of these projects is shared; those that are not are left out.
pub async fn readers(store: &Store, projects: &[ProjectId]) -> Result<HashMap<ProjectId, Vec<UserId>>, StoreError> {
    let mut readers: HashMap<ProjectId, Vec<UserId>> = HashMap::new();
    if projects.is_empty() {
        return Ok(readers);
    }
    let places: Vec<String> = (1..=projects.len()).map(|place| format!("${place}")).collect();
    let sql =
        format!("SELECT project_id, user_id FROM project_permissions WHERE project_id IN ({})", places.join(", "));
    let query = projects.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, project| query.bind(project.to_string()));
    for row in query.fetch_all(store.reader()).await? {
        let project = row.try_get::<String, _>("project_id")?.parse();
        let user = row.try_get::<String, _>("user_id")?.parse().map_err(corrupt("project_permissions.user_id"))?;
        readers.entry(project.map_err(corrupt("project_permissions.project_id"))?).or_default().push(user);
    }
    Ok(readers)
}

/// One page of a project's permissions, and how many there are.
pub async fn list(
    store: &Store,
    project: ProjectId,
    page: Page,
    order: Order,
) -> Result<(Vec<ProjectPermission>, u64), StoreError> {
    let total: i64 =
        sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM project_permissions WHERE project_id = $1")
            .bind(project.to_string())
            .fetch_one(store.reader())
            .await?;
    let sql = format!(
        "{SELECT} WHERE p.project_id = $1 ORDER BY p.{} {}, p.id LIMIT $2 OFFSET $3",
        order.by,
        order.direction()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(project.to_string())
        .bind(page.limit as i64)
        .bind(page.offset() as i64)
        .fetch_all(store.reader())
        .await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total as u64))
}

/// A permission of the project.
pub async fn get(
    connection: &mut AnyConnection,
    project: ProjectId,
    id: ProjectPermissionId,
) -> Result<Option<ProjectPermission>, StoreError> {
    sqlx::query(AssertSqlSafe(format!("{SELECT} WHERE p.project_id = $1 AND p.id = $2")))
        .bind(project.to_string())
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// Gives the user a permission, unless the project has `max` already: `None` then. Must run in a transaction
/// that has locked the project.
pub async fn insert(
    connection: &mut AnyConnection,
    project: ProjectId,
    user: UserId,
    level: Level,
    max: i64,
) -> Result<Option<ProjectPermissionId>, StoreError> {
    let count: i64 =
        sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM project_permissions WHERE project_id = $1")
            .bind(project.to_string())
            .fetch_one(&mut *connection)
            .await?;
    if count >= max {
        return Ok(None);
    }
    let id = ProjectPermissionId::generate();
    sqlx::query(
        "INSERT INTO project_permissions (id, project_id, user_id, permission_level, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(id.to_string())
    .bind(project.to_string())
    .bind(user.to_string())
    .bind(level.as_str())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(Some(id))
}

/// Changes how far a permission goes.
pub async fn update(connection: &mut AnyConnection, id: ProjectPermissionId, level: Level) -> Result<(), StoreError> {
    sqlx::query("UPDATE project_permissions SET permission_level = $2, updated_at = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(level.as_str())
        .bind(now_ms() as i64)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a permission away.
pub async fn delete(connection: &mut AnyConnection, id: ProjectPermissionId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM project_permissions WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// Takes every permission of the project away; gives how many there were.
pub async fn delete_all(connection: &mut AnyConnection, project: ProjectId) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM project_permissions WHERE project_id = $1")
        .bind(project.to_string())
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
