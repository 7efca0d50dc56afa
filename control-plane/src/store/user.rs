//! Accounts.

use super::{Store, StoreError, event, pool};
use crate::event::{Actor, EventKind, NewEvent};
use hoody_protocol::{
    id::{SessionId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

/// An account.
#[derive(Debug, Clone)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Unique name for logging in.
    pub username: String,
    /// Unique e-mail address, lower case.
    pub email: Option<String>,
    /// Name for people.
    pub alias: String,
    /// May use the admin API.
    pub is_admin: bool,
    /// May not log in.
    pub is_banned: bool,
    /// The generation that valid tokens carry.
    pub token_generation: i64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

/// What is needed to make an account.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// Unique name for logging in.
    pub username: &'a str,
    /// Unique e-mail address, lower case.
    pub email: Option<&'a str>,
    /// PHC string.
    pub password_hash: &'a str,
    /// May use the admin API.
    pub is_admin: bool,
}

/// Token generation of a new account.
pub const FIRST_GENERATION: i64 = 1;

const COLUMNS: &str = "id, username, email, alias, is_admin, is_banned, token_generation, created_at, updated_at";

/// The columns of an account in a query that calls the table `table`.
pub(super) fn columns_of(table: &str) -> String {
    COLUMNS.split(", ").map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ")
}

/// Locks the account's row, so that of two transactions that count what the account has, the second waits.
pub async fn lock(connection: &mut AnyConnection, id: UserId) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET updated_at = updated_at WHERE id = $1")
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) fn from_row(row: &AnyRow) -> Result<User, StoreError> {
    let id: String = row.try_get("id")?;
    Ok(User {
        id: id.parse().map_err(|error| StoreError::Corrupt { what: "users.id", source: Box::new(error) })?,
        username: row.try_get("username")?,
        email: row.try_get("email")?,
        alias: row.try_get("alias")?,
        is_admin: row.try_get::<i64, _>("is_admin")? != 0,
        is_banned: row.try_get::<i64, _>("is_banned")? != 0,
        token_generation: row.try_get("token_generation")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// The account with this id.
pub async fn by_id(store: &Store, id: UserId) -> Result<Option<User>, StoreError> {
    sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM users WHERE id = $1")))
        .bind(id.to_string())
        .fetch_optional(store.reader())
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The account with this id, as a transaction sees it; its row is locked until that ends.
pub async fn lock_by_id(connection: &mut AnyConnection, id: UserId) -> Result<Option<User>, StoreError> {
    let sql = format!("UPDATE users SET updated_at = updated_at WHERE id = $1 RETURNING {COLUMNS}");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The account with this address, as a transaction sees it, and whether the address was verified.
pub async fn by_email(connection: &mut AnyConnection, email: &str) -> Result<Option<(User, bool)>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, email_verified_at FROM users WHERE email = $1");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(email)
        .fetch_optional(connection)
        .await?
        .map(|row| Ok((from_row(&row)?, row.try_get::<Option<i64>, _>("email_verified_at")?.is_some())))
        .transpose()
}

/// The account, if its session is still there: what a request with an access token needs, in one read.
pub async fn by_session(store: &Store, id: UserId, session: SessionId) -> Result<Option<User>, StoreError> {
    const SQL: &str = "SELECT id, username, email, alias, is_admin, is_banned, token_generation, created_at, updated_at \
         FROM users WHERE id = $1 AND EXISTS (SELECT 1 FROM sessions WHERE sessions.id = $2 AND user_id = users.id)";
    sqlx::query(SQL)
        .bind(id.to_string())
        .bind(session.to_string())
        .fetch_optional(store.reader())
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The account with this user name or e-mail address, and its password's hash.
pub async fn by_login(store: &Store, login: &str) -> Result<Option<(User, String)>, StoreError> {
    // A user name has no @, an address always has one, so the two cannot be taken for each other.
    let column = if login.contains('@') { "email" } else { "username" };
    sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS}, password_hash FROM users WHERE {column} = $1")))
        .bind(login)
        .fetch_optional(store.reader())
        .await?
        .map(|row| Ok((from_row(&row)?, row.try_get("password_hash")?)))
        .transpose()
}

/// Makes an account with its default pool.
pub async fn insert(connection: &mut AnyConnection, user: &NewUser<'_>) -> Result<UserId, StoreError> {
    let id = UserId::generate();
    sqlx::query(
        "INSERT INTO users (id, username, email, alias, password_hash, is_admin, created_at, updated_at) \
         VALUES ($1, $2, $3, $2, $4, $5, $6, $6)",
    )
    .bind(id.to_string())
    .bind(user.username)
    .bind(user.email)
    .bind(user.password_hash)
    .bind(i64::from(user.is_admin))
    .bind(now_ms() as i64)
    .execute(&mut *connection)
    .await?;
    pool::insert_default(connection, id).await?;
    let created = NewEvent::new(EventKind::UserCreated, id, Some(id), Actor::System).with("username", user.username);
    event::insert(connection, &created).await?;
    Ok(id)
}

/// Ends every token of the account that was issued so far.
pub async fn raise_token_generation(connection: &mut AnyConnection, id: UserId) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET token_generation = token_generation + 1, updated_at = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(now_ms() as i64)
        .execute(connection)
        .await?;
    Ok(())
}

/// Locks the administrators against changes and counts those who can log in.
pub async fn administrators(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    sqlx::query("UPDATE users SET updated_at = updated_at WHERE is_admin = 1").execute(&mut *connection).await?;
    Ok(sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM users WHERE is_admin = 1 AND is_banned = 0")
        .fetch_one(connection)
        .await?)
}

/// Whether an account has this name.
pub async fn is_username_taken(connection: &mut AnyConnection, username: &str) -> Result<bool, StoreError> {
    let found: Option<String> = sqlx::query_scalar("SELECT id FROM users WHERE username = $1")
        .bind(username)
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// One page of all accounts, oldest first, and how many there are.
pub async fn list(store: &Store, page: crate::page::Page) -> Result<(Vec<User>, u64), StoreError> {
    let total: i64 = sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM users").fetch_one(store.reader()).await?;
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM users ORDER BY created_at, id LIMIT $1 OFFSET $2"
    )))
    .bind(page.limit as i64)
    .bind(page.offset() as i64)
    .fetch_all(store.reader())
    .await?;
    Ok((rows.iter().map(from_row).collect::<Result<_, _>>()?, total as u64))
}

/// Deletes the account with its sessions, projects and all that hangs on it; [`StoreError::MissingReference`]
/// where it still has containers.
pub async fn delete(connection: &mut AnyConnection, id: UserId) -> Result<bool, StoreError> {
    let deleted = sqlx::query("DELETE FROM users WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(deleted.rows_affected() == 1)
}
