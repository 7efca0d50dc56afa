//! The free tier: servers that are given away, one to an account, once in its life.

use super::{Store, StoreError, event};
use crate::event::{Actor, EventKind, NewEvent};
use hoody_protocol::{
    id::{ProjectId, ServerId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, Row};

/// A place with free servers.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Region {
    /// Region.
    pub region: String,
    /// Country.
    pub country: String,
    /// City.
    pub city: String,
    /// Free servers that nobody has.
    pub unclaimed: i64,
}

const UNCLAIMED: &str = "is_free = 1 AND owner_id IS NULL AND status = 'enrolled' AND online = 1";

/// Every place with free servers, claimed ones included.
pub async fn regions(store: &Store) -> Result<Vec<Region>, StoreError> {
    let sql = format!(
        "SELECT region, country, city, CAST(SUM(CASE WHEN {UNCLAIMED} THEN 1 ELSE 0 END) AS BIGINT) AS unclaimed \
         FROM servers WHERE is_free = 1 AND status = 'enrolled' GROUP BY region, country, city \
         ORDER BY region, country, city"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(store.reader()).await?)
}

/// Free servers that nobody has.
pub async fn unclaimed(store: &Store) -> Result<i64, StoreError> {
    let sql = format!("SELECT CAST(COUNT(*) AS BIGINT) FROM servers WHERE {UNCLAIMED}");
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(store.reader()).await?)
}

/// The free server that the account has.
pub async fn server_of(store: &Store, user: UserId) -> Result<Option<ServerId>, StoreError> {
    let id: Option<String> = sqlx::query_scalar(
        "SELECT id FROM servers WHERE owner_id = $1 AND is_free = 1 ORDER BY rental_start, id LIMIT 1",
    )
    .bind(user.to_string())
    .fetch_optional(store.reader())
    .await?;
    let parsed = id.map(|id| id.parse()).transpose();
    parsed.map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })
}

/// Uses up the account's claim; false where it was used before. Others of the same account wait.
pub async fn use_claim(connection: &mut AnyConnection, user: UserId) -> Result<bool, StoreError> {
    let used = sqlx::query("UPDATE users SET free_tier_claimed_at = $2 WHERE id = $1 AND free_tier_claimed_at IS NULL")
        .bind(user.to_string())
        .bind(now_ms() as i64)
        .execute(connection)
        .await?;
    Ok(used.rows_affected() == 1)
}

/// Gives the account a free server, one of `region` if there is one; false where none is left.
pub async fn give_server(
    connection: &mut AnyConnection,
    user: UserId,
    region: Option<&str>,
) -> Result<bool, StoreError> {
    let candidates = format!(
        "SELECT id FROM servers WHERE {UNCLAIMED} ORDER BY CASE WHEN region = $1 THEN 0 ELSE 1 END, containers_used, id"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(candidates)).bind(region).fetch_all(&mut *connection).await?;
    let give = format!(
        "UPDATE servers SET owner_id = $2, rental_start = $3, updated_at = $3 WHERE id = $1 AND {UNCLAIMED} RETURNING name"
    );
    for row in rows {
        // The one who comes second finds it claimed, and goes on with the next.
        let id: String = row.try_get("id")?;
        let name: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(give.clone()))
            .bind(&id)
            .bind(user.to_string())
            .bind(now_ms() as i64)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(name) = name {
            let id = id.parse().map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })?;
            let told = NewEvent::of_server(EventKind::ServerUpdated, id, Some(user), &name, Actor::User(user));
            event::insert(connection, &told).await?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens the free tier for the account; what opened it first stays noted.
pub async fn unlock(connection: &mut AnyConnection, user: UserId, source: &str) -> Result<bool, StoreError> {
    let unlocked = sqlx::query(
        "UPDATE users SET free_tier_unlocked_at = $2, free_tier_unlock_source = $3, signup_code_failed = 0 \
         WHERE id = $1 AND free_tier_unlocked_at IS NULL",
    )
    .bind(user.to_string())
    .bind(now_ms() as i64)
    .bind(source)
    .execute(connection)
    .await?;
    Ok(unlocked.rows_affected() == 1)
}

/// Notes that the code sent with the sign-up was not good.
pub async fn code_failed(connection: &mut AnyConnection, user: UserId) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET signup_code_failed = 1 WHERE id = $1")
        .bind(user.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// The account's default project: id and alias. With a transaction that locked the account, nobody makes
/// another one meanwhile.
pub async fn default_project(
    connection: &mut AnyConnection,
    user: UserId,
) -> Result<Option<(ProjectId, String)>, StoreError> {
    let row =
        sqlx::query("SELECT id, alias FROM projects WHERE user_id = $1 AND is_default = 1 ORDER BY created_at LIMIT 1")
            .bind(user.to_string())
            .fetch_optional(connection)
            .await?;
    let Some(row) = row else { return Ok(None) };
    let id = row.try_get::<String, _>("id")?.parse();
    let id = id.map_err(|error| StoreError::Corrupt { what: "projects.id", source: Box::new(error) })?;
    Ok(Some((id, row.try_get("alias")?)))
}

/// The oldest container of a project: id, name and status.
pub async fn first_container(
    store: &Store,
    project: ProjectId,
) -> Result<Option<(String, String, String)>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT id, name, status FROM containers WHERE project_id = $1 AND deleted_at IS NULL \
         ORDER BY created_at, id LIMIT 1",
    )
    .bind(project.to_string())
    .fetch_optional(store.reader())
    .await?)
}

/// Whether the account has a project of this alias.
pub async fn has_project(connection: &mut AnyConnection, user: UserId, alias: &str) -> Result<bool, StoreError> {
    let found: Option<String> = sqlx::query_scalar("SELECT id FROM projects WHERE user_id = $1 AND alias = $2")
        .bind(user.to_string())
        .bind(alias)
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}
