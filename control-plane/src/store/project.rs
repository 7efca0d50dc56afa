//! Projects.

use super::{
    Queries, Store, StoreError, event,
    scope::{self, Scope},
    user,
};
use crate::{
    event::{Actor, EventKind, NewEvent},
    page::{Order, Page},
};
use hoody_protocol::{
    id::{ContainerId, ProjectId, RealmId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its owner.
    pub user: UserId,
    /// Unique among the owner's.
    pub alias: String,
    /// `#RRGGBB`.
    pub color: String,
    /// Limit of its own; `None`: the platform's.
    pub max_containers: Option<i64>,
    /// Realms it belongs to.
    pub realms: Vec<RealmId>,
    /// Made with the account.
    pub is_default: bool,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

/// Fields that a list can be sorted by; also the columns' names.
pub const SORTABLE: &[&str] = &["id", "alias", "created_at", "updated_at"];

const COLUMNS: &str = "id, user_id, alias, color, max_containers, realm_ids, is_default, created_at, updated_at";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn from_row(row: &AnyRow) -> Result<Project, StoreError> {
    Ok(Project {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("projects.id"))?,
        user: row.try_get::<String, _>("user_id")?.parse().map_err(corrupt("projects.user_id"))?,
        alias: row.try_get("alias")?,
        color: row.try_get("color")?,
        max_containers: row.try_get("max_containers")?,
        realms: serde_json::from_str(&row.try_get::<String, _>("realm_ids")?).map_err(corrupt("projects.realm_ids"))?,
        is_default: row.try_get::<i64, _>("is_default")? != 0,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn realms_json(realms: &[RealmId]) -> String {
    // Ids contain nothing that needs escaping.
    let quoted: Vec<String> = realms.iter().map(|realm| format!("\"{realm}\"")).collect();
    format!("[{}]", quoted.join(","))
}

/// One page of the projects that the user owns or has a permission for, and how many there are in all.
pub async fn list(
    store: &Store,
    user: UserId,
    realm: Option<RealmId>,
    scope: &Scope,
    page: Page,
    order: Order,
) -> Result<(Vec<Project>, u64), StoreError> {
    let mut values = vec![user.to_string(), realm.map_or_else(|| "%".to_owned(), scope::pattern)];
    let in_scope = scope.condition("realm_ids", &mut values);
    let visible = format!(
        "(user_id = $1 OR id IN (SELECT project_id FROM project_permissions WHERE user_id = $1)) \
         AND realm_ids LIKE $2 AND {in_scope}"
    );
    let count = format!("SELECT CAST(COUNT(*) AS BIGINT) FROM projects WHERE {visible}");
    let mut counting = sqlx::query_scalar(AssertSqlSafe(count));
    for value in &values {
        counting = counting.bind(value.clone());
    }
    let total: i64 = counting.fetch_one(store.reader()).await?;
    let (limit, offset) = (page.limit, page.offset());
    let sql = format!(
        "SELECT {COLUMNS} FROM projects WHERE {visible} ORDER BY {} {}, id LIMIT {limit} OFFSET {offset}",
        order.by,
        order.direction()
    );
    let mut listing = sqlx::query(AssertSqlSafe(sql));
    for value in values {
        listing = listing.bind(value);
    }
    let rows = listing.fetch_all(store.reader()).await?;
    Ok((rows.iter().map(from_row).collect::<Result<_, _>>()?, total as u64))
}

/// The project with this id.
pub async fn by_id<'e>(queries: impl Queries<'e>, id: ProjectId) -> Result<Option<Project>, StoreError> {
    sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM projects WHERE id = $1")))
        .bind(id.to_string())
        .fetch_optional(queries)
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// Inserts the project, unless its owner has `max` already: false then, and nothing is inserted. Must run
/// in a transaction; others of the same owner wait for it.
pub async fn insert(connection: &mut AnyConnection, project: &Project, max: u32) -> Result<bool, StoreError> {
    // Two creations cannot both see the last free place.
    user::lock(connection, project.user).await?;
    let count: i64 = sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM projects WHERE user_id = $1")
        .bind(project.user.to_string())
        .fetch_one(&mut *connection)
        .await?;
    if count >= i64::from(max) {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO projects (id, user_id, alias, color, max_containers, realm_ids, is_default, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(project.id.to_string())
    .bind(project.user.to_string())
    .bind(&project.alias)
    .bind(&project.color)
    .bind(project.max_containers)
    .bind(realms_json(&project.realms))
    .bind(i64::from(project.is_default))
    .bind(project.created_at)
    .bind(project.updated_at)
    .execute(&mut *connection)
    .await?;
    event::insert(connection, &told(EventKind::ProjectCreated, project, project.user)).await?;
    Ok(true)
}

/// What an update changes; `None`: nothing.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The new alias.
    pub alias: Option<String>,
    /// The new colour.
    pub color: Option<String>,
    /// The new limit; `Some(None)`: the platform's again.
    pub max_containers: Option<Option<i64>>,
    /// The new realms, replacing the old.
    pub realms: Option<Vec<RealmId>>,
}

/// The project with this id, which nobody else changes before the transaction ends.
pub async fn lock(connection: &mut AnyConnection, id: ProjectId) -> Result<Option<Project>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM projects p WHERE id = $1{}", super::row_lock(connection, "p"));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(connection).await?;
    row.map(|row| from_row(&row)).transpose()
}

/// Applies a change; gives the project as it is then.
pub async fn update(
    connection: &mut AnyConnection,
    id: ProjectId,
    change: &Change,
    by: UserId,
) -> Result<Option<Project>, StoreError> {
    let row = sqlx::query(AssertSqlSafe(format!(
        "UPDATE projects SET alias = COALESCE($2, alias), color = COALESCE($3, color), \
         max_containers = CASE WHEN $4 = 1 THEN $5 ELSE max_containers END, \
         realm_ids = COALESCE($6, realm_ids), updated_at = $7 \
         WHERE id = $1 RETURNING {COLUMNS}"
    )))
    .bind(id.to_string())
    .bind(change.alias.as_deref())
    .bind(change.color.as_deref())
    .bind(i64::from(change.max_containers.is_some()))
    .bind(change.max_containers.flatten())
    .bind(change.realms.as_deref().map(realms_json))
    .bind(now_ms() as i64)
    .fetch_optional(&mut *connection)
    .await?;
    let project = row.map(|row| from_row(&row)).transpose()?;
    if let Some(project) = &project {
        event::insert(connection, &told(EventKind::ProjectUpdated, project, by)).await?;
    }
    Ok(project)
}

/// Ids and names of the project's containers, those with a tombstone included.
pub async fn containers(store: &Store, id: ProjectId) -> Result<Vec<(ContainerId, String)>, StoreError> {
    let rows = sqlx::query("SELECT id, name FROM containers WHERE project_id = $1 ORDER BY created_at, id")
        .bind(id.to_string())
        .fetch_all(store.reader())
        .await?;
    let read = |row: &AnyRow| {
        Ok((row.try_get::<String, _>("id")?.parse().map_err(corrupt("containers.id"))?, row.try_get("name")?))
    };
    rows.iter().map(read).collect()
}

/// Deletes the project; [`StoreError::MissingReference`] where it still has containers.
pub async fn delete(connection: &mut AnyConnection, id: ProjectId, by: UserId) -> Result<bool, StoreError> {
    let sql = format!("DELETE FROM projects WHERE id = $1 RETURNING {COLUMNS}");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(false) };
    event::insert(connection, &told(EventKind::ProjectDeleted, &from_row(&row)?, by)).await?;
    Ok(true)
}

/// Tells a change of what belongs to the project, with its details under `name`. The project is locked.
pub async fn tell_updated(
    connection: &mut AnyConnection,
    project: &Project,
    by: UserId,
    name: &str,
    details: serde_json::Value,
) -> Result<(), StoreError> {
    event::insert(connection, &told(EventKind::ProjectUpdated, project, by).with(name, details)).await?;
    Ok(())
}

fn told(kind: EventKind, project: &Project, by: UserId) -> NewEvent {
    NewEvent::new(kind, project.id, Some(project.user), Actor::User(by))
        .in_project(project.id)
        .in_realms(&project.realms)
        .with("alias", project.alias.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{testing::each_backend, user};
    use std::time::Duration;

    /// Long enough for a query that waits for nobody.
    const UNDISTURBED: Duration = Duration::from_millis(500);

    fn project(user: UserId) -> Project {
        let id = ProjectId::generate();
        Project {
            id,
            user,
            alias: id.to_string(),
            color: String::new(),
            max_containers: None,
            realms: Vec::new(),
            is_default: false,
            created_at: 1,
            updated_at: 1,
        }
    }

    #[tokio::test]
    async fn the_last_place_is_given_once() {
        each_backend(|store| async move {
            let new = user::NewUser { username: "ann", email: None, password_hash: "x", is_admin: false };
            let mut tx = store.begin().await.unwrap();
            let owner = user::insert(&mut tx, &new).await.unwrap();
            tx.commit().await.unwrap();

            let mut first = store.begin().await.unwrap();
            assert!(insert(&mut first, &project(owner), 1).await.unwrap());
            let other = store.clone();
            let mut second = tokio::spawn(async move {
                let mut tx = other.begin().await.unwrap();
                let inserted = insert(&mut tx, &project(owner), 1).await.unwrap();
                tx.commit().await.unwrap();
                inserted
            });
            let early = tokio::time::timeout(UNDISTURBED, &mut second).await;
            assert!(early.is_err(), "it must wait until the first has ended");
            first.commit().await.unwrap();
            assert!(!second.await.unwrap());
        })
        .await;
    }
}
