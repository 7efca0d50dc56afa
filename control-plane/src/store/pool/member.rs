//! Members of pools other than the owner, and invitations.

use super::corrupt;
use crate::{
    access::Role,
    store::{Queries, Store, StoreError},
};
use hoody_protocol::{
    id::{PoolId, PoolMemberId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// A member, or somebody who is invited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: PoolMemberId,
    /// The pool.
    pub pool: PoolId,
    /// Who.
    pub user: UserId,
    /// The user's login name.
    pub username: String,
    /// The user's name for people.
    pub user_alias: String,
    /// What they may do.
    pub role: Role,
    /// False: invited, and nothing yet.
    pub is_authorized: bool,
    /// Milliseconds since the epoch.
    pub invited_at: i64,
    /// Milliseconds since the epoch.
    pub joined_at: Option<i64>,
}

/// An invitation as the invited sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The membership to be.
    pub member: Member,
    /// The pool's name.
    pub pool_name: String,
    /// The pool's description.
    pub pool_description: Option<String>,
    /// Who invited: id, login name, name for people. `None`: the account is gone.
    pub invited_by: Option<(String, String, String)>,
}

const SELECT: &str = "SELECT m.id, m.pool_id, m.user_id, m.role, m.is_authorized, m.invited_at, m.joined_at, \
    u.username, u.alias AS user_alias";
const FROM: &str = "FROM pool_members m JOIN users u ON u.id = m.user_id";

fn read(row: &AnyRow) -> Result<Member, StoreError> {
    Ok(Member {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("pool_members.id"))?,
        pool: row.try_get::<String, _>("pool_id")?.parse().map_err(corrupt("pool_members.pool_id"))?,
        user: row.try_get::<String, _>("user_id")?.parse().map_err(corrupt("pool_members.user_id"))?,
        username: row.try_get("username")?,
        user_alias: row.try_get("user_alias")?,
        role: row.try_get::<String, _>("role")?.parse().map_err(corrupt("pool_members.role"))?,
        is_authorized: row.try_get::<i64, _>("is_authorized")? != 0,
        invited_at: row.try_get("invited_at")?,
        joined_at: row.try_get("joined_at")?,
    })
}

/// Everybody in the pool but the owner, the invited too.
pub async fn members<'e>(queries: impl Queries<'e>, pool: PoolId) -> Result<Vec<Member>, StoreError> {
    let sql = format!("{SELECT} {FROM} WHERE m.pool_id = $1 ORDER BY m.invited_at, m.id");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(pool.to_string()).fetch_all(queries).await?;
    rows.iter().map(read).collect()
}

/// The user's membership in the pool, or invitation to it.
pub async fn member<'e>(queries: impl Queries<'e>, pool: PoolId, user: UserId) -> Result<Option<Member>, StoreError> {
    let sql = format!("{SELECT} {FROM} WHERE m.pool_id = $1 AND m.user_id = $2");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(pool.to_string()).bind(user.to_string());
    query.fetch_optional(queries).await?.as_ref().map(read).transpose()
}

/// How many invitations the user has not answered.
pub async fn pending_invitations(store: &Store, user: UserId) -> Result<i64, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM pool_members WHERE user_id = $1 AND is_authorized = 0";
    Ok(sqlx::query_scalar(sql).bind(user.to_string()).fetch_one(store.reader()).await?)
}

/// The user's open invitations.
pub async fn invitations(store: &Store, user: UserId) -> Result<Vec<Invitation>, StoreError> {
    let sql = format!(
        "{SELECT}, p.name AS pool_name, p.description AS pool_description, b.id AS by_id, b.username AS by_username, \
         b.alias AS by_alias {FROM} JOIN pools p ON p.id = m.pool_id LEFT JOIN users b ON b.id = m.invited_by \
         WHERE m.user_id = $1 AND m.is_authorized = 0 ORDER BY m.invited_at, m.id"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).fetch_all(store.reader()).await?;
    let invitation = |row: &AnyRow| {
        let by: Option<String> = row.try_get("by_id")?;
        let invited_by = match by {
            Some(id) => Some((id, row.try_get("by_username")?, row.try_get("by_alias")?)),
            None => None,
        };
        Ok(Invitation {
            member: read(row)?,
            pool_name: row.try_get("pool_name")?,
            pool_description: row.try_get("pool_description")?,
            invited_by,
        })
    };
    rows.iter().map(invitation).collect()
}

/// Invites a user, unless the pool has `max` members and invitations already: false then. The pool is locked.
pub async fn insert_member(
    connection: &mut AnyConnection,
    pool: PoolId,
    user: UserId,
    role: Role,
    by: UserId,
    max: i64,
) -> Result<bool, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM pool_members WHERE pool_id = $1")
        .bind(pool.to_string())
        .fetch_one(&mut *connection)
        .await?;
    if count >= max {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO pool_members (id, pool_id, user_id, role, invited_by, invited_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(PoolMemberId::generate().to_string())
    .bind(pool.to_string())
    .bind(user.to_string())
    .bind(role.as_str())
    .bind(by.to_string())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(true)
}

/// Writes role and whether the invitation was accepted.
pub async fn update_member(connection: &mut AnyConnection, member: &Member) -> Result<(), StoreError> {
    sqlx::query("UPDATE pool_members SET role = $2, is_authorized = $3, joined_at = $4 WHERE id = $1")
        .bind(member.id.to_string())
        .bind(member.role.as_str())
        .bind(i64::from(member.is_authorized))
        .bind(member.joined_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes a member or an invitation.
pub async fn delete_member(connection: &mut AnyConnection, id: PoolMemberId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM pool_members WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(())
}
