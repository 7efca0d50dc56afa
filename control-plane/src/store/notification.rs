//! Notifications: for everybody, for every user, or for some; and who has read them.

use super::{Store, StoreError, event};
use crate::event::{Actor, EventKind, NewEvent};
use hoody_protocol::id::{NotificationId, UserId};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Identity.
    pub id: NotificationId,
    /// One line.
    pub title: String,
    /// The text.
    pub message: String,
    /// `MAINTENANCE`, `ANNOUNCEMENT` or `STATUS_UPDATE`.
    pub kind: String,
    /// `INFO`, `WARNING`, `ERROR` or `SUCCESS`.
    pub severity: String,
    /// Shown to everybody, also without an account.
    pub is_public: bool,
    /// Shown to every user.
    pub is_global: bool,
    /// Not shown from then on.
    pub expires_at: Option<i64>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
    /// When the user who asks read it.
    pub read_at: Option<i64>,
}

/// Most notifications that one list shows.
const MAX_LISTED: i64 = 200;
const COLUMNS: &str = "n.id, n.title, n.message, n.kind, n.severity, n.is_public, n.is_global, n.expires_at, \
    n.created_at, n.updated_at";
/// What user `$1` is shown at the time `$2`.
const SHOWN: &str = "(n.expires_at IS NULL OR n.expires_at > $2) AND (n.is_public = 1 OR n.is_global = 1 OR EXISTS \
    (SELECT 1 FROM notification_targets t WHERE t.notification_id = n.id AND t.user_id = $1))";

fn read(row: &AnyRow) -> Result<Notification, StoreError> {
    let id: String = row.try_get("id")?;
    Ok(Notification {
        id: id.parse().map_err(|error| StoreError::Corrupt { what: "notifications.id", source: Box::new(error) })?,
        title: row.try_get("title")?,
        message: row.try_get("message")?,
        kind: row.try_get("kind")?,
        severity: row.try_get("severity")?,
        is_public: row.try_get::<i64, _>("is_public")? != 0,
        is_global: row.try_get::<i64, _>("is_global")? != 0,
        expires_at: row.try_get("expires_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        read_at: row.try_get("read_at")?,
    })
}

/// What the user is shown, newest first.
pub async fn of_user(store: &Store, user: UserId, now: i64) -> Result<Vec<Notification>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, r.read_at FROM notifications n LEFT JOIN notification_reads r \
         ON r.notification_id = n.id AND r.user_id = $1 WHERE {SHOWN} ORDER BY n.created_at DESC, n.id DESC LIMIT $3"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).bind(now).bind(MAX_LISTED);
    query.fetch_all(store.reader()).await?.iter().map(read).collect()
}

/// What everybody is shown, newest first.
pub async fn public(store: &Store, now: i64) -> Result<Vec<Notification>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, CAST(NULL AS BIGINT) AS read_at FROM notifications n WHERE n.is_public = 1 \
         AND (n.expires_at IS NULL OR n.expires_at > $1) ORDER BY n.created_at DESC, n.id DESC LIMIT $2"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(now).bind(MAX_LISTED);
    query.fetch_all(store.reader()).await?.iter().map(read).collect()
}

/// A page of all, newest first, and how many there are.
pub async fn all(store: &Store, limit: u64, offset: u64) -> Result<(Vec<Notification>, u64), StoreError> {
    let count = "SELECT CAST(COUNT(*) AS BIGINT) FROM notifications";
    let total: i64 = sqlx::query_scalar(count).fetch_one(store.reader()).await?;
    let sql = format!(
        "SELECT {COLUMNS}, CAST(NULL AS BIGINT) AS read_at FROM notifications n \
         ORDER BY n.created_at DESC, n.id DESC LIMIT $1 OFFSET $2"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(limit as i64).bind(offset as i64);
    let rows = query.fetch_all(store.reader()).await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total as u64))
}

/// The users that a notification is for.
pub async fn targets(store: &Store, id: NotificationId) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT user_id FROM notification_targets WHERE notification_id = $1 ORDER BY user_id";
    Ok(sqlx::query_scalar(sql).bind(id.to_string()).fetch_all(store.reader()).await?)
}

/// Writes a notification for these users (none: it is public or global), with an event in the record of
/// each. [`StoreError::MissingReference`] where there is no such user.
pub async fn insert(
    connection: &mut AnyConnection,
    notification: &Notification,
    users: &[UserId],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO notifications (id, title, message, kind, severity, is_public, is_global, expires_at, created_at, \
         updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
    )
    .bind(notification.id.to_string())
    .bind(&notification.title)
    .bind(&notification.message)
    .bind(&notification.kind)
    .bind(&notification.severity)
    .bind(i64::from(notification.is_public))
    .bind(i64::from(notification.is_global))
    .bind(notification.expires_at)
    .bind(notification.created_at)
    .execute(&mut *connection)
    .await?;
    for user in users {
        sqlx::query(
            "INSERT INTO notification_targets (notification_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(notification.id.to_string())
        .bind(user.to_string())
        .execute(&mut *connection)
        .await?;
        event::insert(connection, &told(EventKind::NotificationCreated, notification, Some(*user))).await?;
    }
    if users.is_empty() {
        event::insert(connection, &told(EventKind::NotificationCreated, notification, None)).await?;
    }
    Ok(())
}

fn told(kind: EventKind, notification: &Notification, owner: Option<UserId>) -> NewEvent {
    NewEvent::new(kind, notification.id, owner, Actor::Operator)
        .with("title", notification.title.as_str())
        .with("severity", notification.severity.as_str())
        .with("notification_type", notification.kind.as_str())
}

/// Notes that the user has read it. The first time counts; `None`: they are not shown it.
pub async fn mark_read(
    connection: &mut AnyConnection,
    user: UserId,
    id: NotificationId,
    now: i64,
) -> Result<Option<i64>, StoreError> {
    let sql = format!("SELECT 1 AS one FROM notifications n WHERE n.id = $3 AND {SHOWN}");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).bind(now).bind(id.to_string());
    if query.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(None);
    }
    let inserted = sqlx::query(
        "INSERT INTO notification_reads (notification_id, user_id, read_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(id.to_string())
    .bind(user.to_string())
    .bind(now)
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 1 {
        record_read(connection, user, &id.to_string()).await?;
    }
    let sql = "SELECT read_at FROM notification_reads WHERE notification_id = $1 AND user_id = $2";
    Ok(Some(sqlx::query_scalar(sql).bind(id.to_string()).bind(user.to_string()).fetch_one(connection).await?))
}

async fn record_read(connection: &mut AnyConnection, user: UserId, id: &str) -> Result<(), StoreError> {
    event::insert(connection, &NewEvent::new(EventKind::NotificationRead, id, Some(user), Actor::User(user))).await?;
    Ok(())
}

/// Notes that the user has read all that they are shown; how many were new.
pub async fn mark_all_read(connection: &mut AnyConnection, user: UserId, now: i64) -> Result<u64, StoreError> {
    let sql = format!(
        "INSERT INTO notification_reads (notification_id, user_id, read_at) \
         SELECT n.id, $1, $2 FROM notifications n WHERE {SHOWN} ON CONFLICT DO NOTHING RETURNING notification_id"
    );
    let read: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(user.to_string()).bind(now).fetch_all(&mut *connection).await?;
    for id in &read {
        record_read(connection, user, id).await?;
    }
    Ok(read.len() as u64)
}

/// Removes a notification, with an event in the record of each whom it was for; false where there is none.
pub async fn delete(connection: &mut AnyConnection, id: NotificationId) -> Result<bool, StoreError> {
    let users: Vec<String> = sqlx::query_scalar("SELECT user_id FROM notification_targets WHERE notification_id = $1")
        .bind(id.to_string())
        .fetch_all(&mut *connection)
        .await?;
    let sql = format!("SELECT {COLUMNS}, CAST(NULL AS BIGINT) AS read_at FROM notifications n WHERE n.id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(false) };
    let notification = read(&row)?;
    let gone = sqlx::query("DELETE FROM notifications WHERE id = $1").bind(id.to_string());
    if gone.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(false);
    }
    for user in &users {
        let user = user
            .parse()
            .map_err(|error| StoreError::Corrupt { what: "notification_targets.user_id", source: Box::new(error) })?;
        event::insert(connection, &told(EventKind::NotificationDeleted, &notification, Some(user))).await?;
    }
    if users.is_empty() {
        event::insert(connection, &told(EventKind::NotificationDeleted, &notification, None)).await?;
    }
    Ok(true)
}

/// Removes at most `limit` notifications that ended before `before`; how many it were.
pub async fn delete_expired(store: &Store, before: i64, limit: u32) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let deleted = sqlx::query(
        "DELETE FROM notifications WHERE id IN (SELECT id FROM notifications WHERE expires_at < $1 LIMIT $2)",
    )
    .bind(before)
    .bind(i64::from(limit))
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(deleted)
}
