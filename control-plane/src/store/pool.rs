//! Pools: servers that the members of the pool may use.
//!
//! A server is in the pool that its row names, else in its owner's default pool, which has the owner's own
//! id. The owner of a pool has no row among its members.

mod member;

pub use member::{
    Invitation, Member, delete_member, insert_member, invitations, member, members, pending_invitations, update_member,
};

use super::{Queries, Store, StoreError, user};
use crate::access::Role;
use hoody_protocol::{
    id::{PoolId, ServerId, UserId},
    time::now_ms,
};
use serde_json::{Map, Value};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use std::collections::HashMap;

/// A pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its id.
    pub id: PoolId,
    /// Whose it is.
    pub owner: UserId,
    /// Unique among the owner's.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What clients keep with it.
    pub settings: Map<String, Value>,
    /// Made with the account; it stays.
    pub is_default: bool,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

/// A pool as one of its people sees it in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The pool.
    pub pool: Pool,
    /// What the user is in it.
    pub role: Role,
    /// People in it, the owner too, invitations not.
    pub members: i64,
    /// Servers in it.
    pub servers: i64,
}

/// A server as its pool shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolServer {
    /// The server.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// `created`, `enrolled`, `disabled` or `revoked`.
    pub status: String,
    /// Its agent is connected.
    pub online: bool,
}

const COLUMNS: &str = "p.id, p.owner_id, p.name, p.description, p.settings, p.is_default, p.created_at, p.updated_at";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn read(row: &AnyRow) -> Result<Pool, StoreError> {
    Ok(Pool {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("pools.id"))?,
        owner: row.try_get::<String, _>("owner_id")?.parse().map_err(corrupt("pools.owner_id"))?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        settings: serde_json::from_str(&row.try_get::<String, _>("settings")?).map_err(corrupt("pools.settings"))?,
        is_default: row.try_get::<i64, _>("is_default")? != 0,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// The condition that the user at the place `user` (`$1`) may use the server of the row `server`: it is
/// theirs, or in a pool that is theirs, or of which they are a member.
pub(super) fn usable(server: &str, user: &str) -> String {
    format!(
        "({server}.owner_id = {user} \
         OR EXISTS (SELECT 1 FROM pools own WHERE own.id = {server}.pool_id AND own.owner_id = {user}) \
         OR EXISTS (SELECT 1 FROM pool_members m WHERE m.pool_id = COALESCE({server}.pool_id, {server}.owner_id) \
         AND m.user_id = {user} AND m.is_authorized = 1))"
    )
}

/// Adds the account's default pool.
pub(super) async fn insert_default(connection: &mut AnyConnection, owner: UserId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO pools (id, owner_id, name, is_default, created_at, updated_at) \
         VALUES ($1, $1, 'Default', 1, $2, $2)",
    )
    .bind(owner.to_string())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds a pool, unless its owner has `max` already: false then. Must run in a transaction; others of the
/// same owner wait for it.
pub async fn insert(connection: &mut AnyConnection, pool: &Pool, max: i64) -> Result<bool, StoreError> {
    user::lock(connection, pool.owner).await?;
    let count: i64 = sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM pools WHERE owner_id = $1")
        .bind(pool.owner.to_string())
        .fetch_one(&mut *connection)
        .await?;
    if count >= max {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO pools (id, owner_id, name, description, settings, is_default, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, 0, $6, $6)",
    )
    .bind(pool.id.to_string())
    .bind(pool.owner.to_string())
    .bind(pool.name.clone())
    .bind(pool.description.clone())
    .bind(Value::Object(pool.settings.clone()).to_string())
    .bind(pool.created_at)
    .execute(connection)
    .await?;
    Ok(true)
}

/// The pool with this id.
pub async fn get<'e>(queries: impl Queries<'e>, id: PoolId) -> Result<Option<Pool>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM pools p WHERE p.id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(queries).await?;
    row.as_ref().map(read).transpose()
}

/// The pool with this id, which nobody else changes before the transaction ends.
pub async fn lock(connection: &mut AnyConnection, id: PoolId) -> Result<Option<Pool>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM pools p WHERE p.id = $1{}", super::row_lock(connection, "p"));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// What the user is in the pool; `None`: nothing, or merely invited.
pub async fn role<'e>(queries: impl Queries<'e>, pool: &Pool, user: UserId) -> Result<Option<Role>, StoreError> {
    if pool.owner == user {
        return Ok(Some(Role::Owner));
    }
    let role: Option<String> =
        sqlx::query_scalar("SELECT role FROM pool_members WHERE pool_id = $1 AND user_id = $2 AND is_authorized = 1")
            .bind(pool.id.to_string())
            .bind(user.to_string())
            .fetch_optional(queries)
            .await?;
    role.map(|role| role.parse()).transpose().map_err(corrupt("pool_members.role"))
}

/// What the user is on the servers that they may use, or on one of them: their owner's role where it is theirs or in
/// a pool of theirs, else what they are in its pool.
pub async fn server_roles<'e>(
    queries: impl Queries<'e>,
    user: UserId,
    server: Option<ServerId>,
) -> Result<HashMap<ServerId, Role>, StoreError> {
    let sql = format!(
        "SELECT s.id, CASE WHEN s.owner_id = $1 OR EXISTS (SELECT 1 FROM pools own WHERE own.id = s.pool_id \
         AND own.owner_id = $1) THEN 'owner' ELSE (SELECT m.role FROM pool_members m WHERE m.user_id = $1 \
         AND m.pool_id = COALESCE(s.pool_id, s.owner_id) AND m.is_authorized = 1) END AS role \
         FROM servers s WHERE {}{}",
        usable("s", "$1"),
        if server.is_some() { " AND s.id = $2" } else { "" }
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string());
    let query = match server {
        Some(server) => query.bind(server.to_string()),
        None => query,
    };
    let mut roles = HashMap::new();
    for row in query.fetch_all(queries).await? {
        let id = row.try_get::<String, _>("id")?.parse().map_err(corrupt("servers.id"))?;
        let role = match row.try_get::<String, _>("role")?.as_str() {
            // No member's role: it cannot be given.
            "owner" => Role::Owner,
            role => role.parse().map_err(corrupt("pool_members.role"))?,
        };
        roles.insert(id, role);
    }
    Ok(roles)
}

/// The pools that the user owns or is a member of, the default pool first.
pub async fn list(store: &Store, user: UserId) -> Result<Vec<Listed>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, m.role, (SELECT CAST(COUNT(*) AS BIGINT) FROM pool_members n \
         WHERE n.pool_id = p.id AND n.is_authorized = 1) AS members, \
         (SELECT CAST(COUNT(*) AS BIGINT) FROM servers s WHERE s.pool_id = p.id) + \
         (SELECT CAST(COUNT(*) AS BIGINT) FROM servers s WHERE s.pool_id IS NULL AND s.owner_id = p.id) AS servers \
         FROM pools p LEFT JOIN pool_members m ON m.pool_id = p.id AND m.user_id = $1 AND m.is_authorized = 1 \
         WHERE p.owner_id = $1 OR m.user_id IS NOT NULL ORDER BY p.is_default DESC, p.created_at, p.id"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).fetch_all(store.reader()).await?;
    let listed = |row: &AnyRow| {
        let pool = read(row)?;
        let role: Option<String> = row.try_get("role")?;
        let role = match role {
            _ if pool.owner == user => Role::Owner,
            Some(role) => role.parse().map_err(corrupt("pool_members.role"))?,
            None => Role::User,
        };
        let members = row.try_get::<i64, _>("members")? + 1;
        Ok(Listed { pool, role, members, servers: row.try_get("servers")? })
    };
    rows.iter().map(listed).collect()
}

/// The servers in the pool.
pub async fn servers(store: &Store, pool: PoolId) -> Result<Vec<PoolServer>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, name, status, online FROM servers \
         WHERE pool_id = $1 OR (pool_id IS NULL AND owner_id = $1) ORDER BY name, id",
    )
    .bind(pool.to_string())
    .fetch_all(store.reader())
    .await?;
    let server = |row: &AnyRow| {
        Ok(PoolServer {
            id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("servers.id"))?,
            name: row.try_get("name")?,
            status: row.try_get("status")?,
            online: row.try_get::<i64, _>("online")? != 0,
        })
    };
    rows.iter().map(server).collect()
}

/// Writes name, description and settings.
pub async fn update(connection: &mut AnyConnection, pool: &Pool) -> Result<(), StoreError> {
    sqlx::query("UPDATE pools SET name = $2, description = $3, settings = $4, updated_at = $5 WHERE id = $1")
        .bind(pool.id.to_string())
        .bind(pool.name.clone())
        .bind(pool.description.clone())
        .bind(Value::Object(pool.settings.clone()).to_string())
        .bind(now_ms() as i64)
        .execute(connection)
        .await?;
    Ok(())
}

/// Containers on the pool's servers that belong to others than the servers' owners.
pub async fn guests(connection: &mut AnyConnection, pool: PoolId) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT CAST(COUNT(*) AS BIGINT) FROM containers c JOIN servers s ON s.id = c.server_id \
         WHERE s.pool_id = $1 AND (s.owner_id IS NULL OR c.owner_id <> s.owner_id)",
    )
    .bind(pool.to_string())
    .fetch_one(connection)
    .await?)
}

/// Deletes the pool with its members. Its servers are in their owners' default pools then.
pub async fn delete(connection: &mut AnyConnection, pool: PoolId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM pools WHERE id = $1").bind(pool.to_string()).execute(connection).await?;
    Ok(())
}
