//! Devices that wait for somebody to let them in.

use super::{Store, StoreError};
use hoody_protocol::{
    id::{RequestId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

/// How long one that has expired is still told so, milliseconds.
const REMEMBERED_MS: i64 = 60 * 60 * 1000;

/// How far a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceStatus {
    /// Nobody has decided yet.
    Pending,
    /// The account said yes.
    Approved {
        /// The account.
        user: UserId,
        /// Its token generation then.
        generation: i64,
    },
    /// Somebody said no.
    Denied,
}

/// A device that waits.
#[derive(Debug, Clone)]
pub struct DeviceLogin {
    /// Its id.
    pub id: String,
    /// What its verifier must hash to.
    pub code_challenge: Option<String>,
    /// What it calls itself.
    pub client: Option<String>,
    /// Where it is.
    pub ip_address: String,
    /// How far it is.
    pub status: DeviceStatus,
    /// The least time between two polls, milliseconds.
    pub interval_ms: i64,
    /// When it last polled, milliseconds.
    pub polled_at: Option<i64>,
    /// When it ends, milliseconds.
    pub expires_at: i64,
}

/// What is needed for a new one.
#[derive(Debug)]
pub struct NewDeviceLogin<'a> {
    /// Hash of what it polls with.
    pub device_hash: &'a str,
    /// Hash of what its owner types.
    pub user_code_hash: &'a str,
    /// What its verifier must hash to.
    pub code_challenge: Option<&'a str>,
    /// What it calls itself.
    pub client: Option<&'a str>,
    /// Where it is.
    pub ip_address: &'a str,
    /// The least time between two polls, milliseconds.
    pub interval_ms: i64,
    /// When it ends, milliseconds.
    pub expires_at: i64,
}

const COLUMNS: &str =
    "id, code_challenge, client, ip_address, status, user_id, generation, interval_ms, polled_at, expires_at";

fn from_row(row: &AnyRow) -> Result<DeviceLogin, StoreError> {
    let user: Option<String> = row.try_get("user_id")?;
    let user = user.map(|text| text.parse()).transpose();
    let user = user.map_err(|error| StoreError::Corrupt { what: "device_logins.user_id", source: Box::new(error) })?;
    let status: String = row.try_get("status")?;
    Ok(DeviceLogin {
        id: row.try_get("id")?,
        code_challenge: row.try_get("code_challenge")?,
        client: row.try_get("client")?,
        ip_address: row.try_get("ip_address")?,
        status: match (status.as_str(), user) {
            ("pending", _) => DeviceStatus::Pending,
            ("approved", Some(user)) => DeviceStatus::Approved { user, generation: row.try_get("generation")? },
            _ => DeviceStatus::Denied,
        },
        interval_ms: row.try_get("interval_ms")?,
        polled_at: row.try_get("polled_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

/// Stores a new one.
pub async fn insert(connection: &mut AnyConnection, new: &NewDeviceLogin<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_logins (id, device_hash, user_code_hash, code_challenge, client, ip_address, status, \
         interval_ms, expires_at) VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8)",
    )
    .bind(RequestId::generate().to_string())
    .bind(new.device_hash)
    .bind(new.user_code_hash)
    .bind(new.code_challenge)
    .bind(new.client)
    .bind(new.ip_address)
    .bind(new.interval_ms)
    .bind(new.expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives the device of a typed code a ticket, in place of an earlier one; `None` where none waits.
pub async fn give_ticket(
    connection: &mut AnyConnection,
    user_code_hash: &str,
    ticket_hash: &str,
) -> Result<Option<DeviceLogin>, StoreError> {
    let sql = format!(
        "UPDATE device_logins SET ticket_hash = $2 WHERE user_code_hash = $1 AND status = 'pending' \
         AND expires_at > $3 RETURNING {COLUMNS}"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(user_code_hash)
        .bind(ticket_hash)
        .bind(now_ms() as i64)
        .fetch_optional(connection)
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The id of the device that waits under a ticket.
pub async fn of_ticket(store: &Store, ticket_hash: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM device_logins WHERE ticket_hash = $1 AND status = 'pending' AND expires_at > $2",
    )
    .bind(ticket_hash)
    .bind(now_ms() as i64)
    .fetch_optional(store.reader())
    .await?)
}

/// Lets a waiting device in, as `user`; false where it does not wait any more.
pub async fn approve(
    connection: &mut AnyConnection,
    id: &str,
    user: UserId,
    generation: i64,
) -> Result<bool, StoreError> {
    let approved = sqlx::query(
        "UPDATE device_logins SET status = 'approved', user_id = $2, generation = $3, ticket_hash = NULL \
         WHERE id = $1 AND status = 'pending' AND expires_at > $4",
    )
    .bind(id)
    .bind(user.to_string())
    .bind(generation)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(approved.rows_affected() == 1)
}

/// Turns a waiting device away; false where none waits under the ticket.
pub async fn deny(connection: &mut AnyConnection, ticket_hash: &str) -> Result<bool, StoreError> {
    let denied = sqlx::query(
        "UPDATE device_logins SET status = 'denied', ticket_hash = NULL \
         WHERE ticket_hash = $1 AND status = 'pending' AND expires_at > $2",
    )
    .bind(ticket_hash)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(denied.rows_affected() == 1)
}

/// The device that polls, its row locked until the transaction ends.
pub async fn lock(connection: &mut AnyConnection, device_hash: &str) -> Result<Option<DeviceLogin>, StoreError> {
    let sql = format!("UPDATE device_logins SET status = status WHERE device_hash = $1 RETURNING {COLUMNS}");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(device_hash)
        .fetch_optional(connection)
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// Notes a poll, and how long the next one must wait.
pub async fn polled(connection: &mut AnyConnection, id: &str, now: i64, interval_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE device_logins SET polled_at = $2, interval_ms = $3 WHERE id = $1")
        .bind(id)
        .bind(now)
        .bind(interval_ms)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends it.
pub async fn delete(connection: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM device_logins WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// Forgets those that ended a while ago.
pub async fn purge(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM device_logins WHERE expires_at <= $1")
        .bind(now_ms() as i64 - REMEMBERED_MS)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}
