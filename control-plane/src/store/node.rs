//! Server rows as the links see them: identity, what the last hello said, online or not.

use super::{Store, StoreError, server::record};
use crate::event::{Actor, EventKind};
use hoody_protocol::{
    id::ServerId,
    link::{Hello, NodeFacts},
    transport::PublicKey,
};
use sqlx::{AnyConnection, Row, any::AnyRow};

/// What an operator or the enrolment made of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerStatus {
    /// The row is there, no agent has enrolled.
    Created,
    /// An agent's key is pinned.
    Enrolled,
    /// For now, the agent is not let in.
    Disabled,
    /// The agent is never let in again.
    Revoked,
}

impl ServerStatus {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Enrolled => "enrolled",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }

    fn parse(word: &str) -> Result<Self, StoreError> {
        [Self::Created, Self::Enrolled, Self::Disabled, Self::Revoked]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| StoreError::Corrupt { what: "servers.status", source: word.into() })
    }
}

/// What decides whether a node gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The server.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// What an operator or the enrolment made of it.
    pub status: ServerStatus,
    /// The key that was pinned at enrolment.
    pub public_key: Option<PublicKey>,
}

const COLUMNS: &str = "id, name, status, public_key";

fn node(row: &AnyRow) -> Result<Node, StoreError> {
    Ok(Node {
        id: id(row, "id")?,
        name: row.try_get("name")?,
        status: ServerStatus::parse(row.try_get("status")?)?,
        public_key: match row.try_get::<Option<String>, _>("public_key")? {
            Some(text) => Some(
                text.parse()
                    .map_err(|error| StoreError::Corrupt { what: "servers.public_key", source: Box::new(error) })?,
            ),
            None => None,
        },
    })
}

fn id(row: &AnyRow, column: &str) -> Result<ServerId, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })
}

/// The server with this id.
pub async fn by_id(store: &Store, server: ServerId) -> Result<Option<Node>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM servers WHERE id = $1"));
    sqlx::query(sql).bind(server.to_string()).fetch_optional(store.reader()).await?.as_ref().map(node).transpose()
}

/// The server with this name.
pub async fn by_name(store: &Store, name: &str) -> Result<Option<Node>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM servers WHERE name = $1"));
    sqlx::query(sql).bind(name.to_owned()).fetch_optional(store.reader()).await?.as_ref().map(node).transpose()
}

/// The server whose agent has this key.
pub async fn by_key(store: &Store, key: &PublicKey) -> Result<Option<Node>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM servers WHERE public_key = $1"));
    sqlx::query(sql).bind(key.to_string()).fetch_optional(store.reader()).await?.as_ref().map(node).transpose()
}

/// Revokes the server for good, and every join token of it; false where there is none.
pub async fn revoke(connection: &mut AnyConnection, server: ServerId, now: i64) -> Result<bool, StoreError> {
    sqlx::query("DELETE FROM join_tokens WHERE server_id = $1")
        .bind(server.to_string())
        .execute(&mut *connection)
        .await?;
    let row = sqlx::query("UPDATE servers SET status = $2, updated_at = $3 WHERE id = $1 RETURNING name, owner_id")
        .bind(server.to_string())
        .bind(ServerStatus::Revoked.as_str())
        .bind(now)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(false) };
    let details = [("revoked", true.into())];
    record(connection, server, EventKind::ServerDisabled, &row, Actor::Operator, &details).await?;
    Ok(true)
}

/// Servers whose agents are not let in.
pub async fn shut_out(store: &Store) -> Result<Vec<ServerId>, StoreError> {
    sqlx::query("SELECT id FROM servers WHERE status IN ('disabled', 'revoked')")
        .fetch_all(store.reader())
        .await?
        .iter()
        .map(|row| id(row, "id"))
        .collect()
}

/// Writes down what a hello said and that the server is online. Its capacity follows the facts, unless an
/// operator has set it to something else than the facts before these.
pub async fn record_hello(
    connection: &mut AnyConnection,
    server: ServerId,
    hello: &Hello,
    now: i64,
) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT name, owner_id, online, facts, cpu_millis, memory_bytes, disk_bytes FROM servers WHERE id = $1{}",
        super::row_lock(connection, "servers")
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(server.to_string()).fetch_one(&mut *connection).await?;
    let before: Option<String> = row.try_get("facts")?;
    // Facts of an older build that no longer parse count as none: the capacity then stays as it is.
    let before = before.and_then(|text| serde_json::from_str::<NodeFacts>(&text).ok()).map(|facts| capacity(&facts));
    let present: [i64; 3] = [row.try_get("cpu_millis")?, row.try_get("memory_bytes")?, row.try_get("disk_bytes")?];
    let offered = capacity(&hello.facts);
    let mut wanted = present;
    for (index, value) in wanted.iter_mut().enumerate() {
        if *value == 0 || before.is_some_and(|before| before[index] == *value) {
            *value = offered[index];
        }
    }
    let facts = serde_json::to_string(&hello.facts)
        .map_err(|error| StoreError::Corrupt { what: "servers.facts", source: Box::new(error) })?;
    sqlx::query(
        "UPDATE servers SET facts = $2, agent_version = $3, boot_id = $4, architecture = $5, cpu_millis = $6, \
         memory_bytes = $7, disk_bytes = $8, online_changed_at = CASE WHEN online = 1 THEN online_changed_at ELSE $9 END, \
         online = 1, updated_at = $9 WHERE id = $1",
    )
    .bind(server.to_string())
    .bind(facts)
    .bind(hello.agent_version.to_string())
    .bind(hello.boot_id.to_string())
    .bind(hello.facts.architecture.to_string())
    .bind(wanted[0])
    .bind(wanted[1])
    .bind(wanted[2])
    .bind(now)
    .execute(&mut *connection)
    .await?;
    if row.try_get::<i64, _>("online")? == 0 {
        record_health(connection, server, &row, true).await?;
    }
    Ok(())
}

/// Thousandths of cores, bytes of memory, bytes of disk; what a hostile node overstates is cut to what the
/// database holds.
fn capacity(facts: &NodeFacts) -> [i64; 3] {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    [i64::from(facts.cpu_cores) * 1000, signed(facts.memory_bytes), signed(facts.disk_bytes)]
}

/// The server's link is still there.
pub async fn set_online(store: &Store, server: ServerId, now: i64) -> Result<(), StoreError> {
    let online: Option<i64> = sqlx::query_scalar("SELECT online FROM servers WHERE id = $1")
        .bind(server.to_string())
        .fetch_optional(store.reader())
        .await?;
    if online != Some(0) {
        return Ok(());
    }
    write_online(store, server, true, now).await
}

/// The server's link is gone.
pub async fn set_offline(store: &Store, server: ServerId, now: i64) -> Result<(), StoreError> {
    write_online(store, server, false, now).await
}

async fn write_online(store: &Store, server: ServerId, online: bool, now: i64) -> Result<(), StoreError> {
    let write = store.write(move |connection| {
        Box::pin(async move {
            let row = sqlx::query(
                "UPDATE servers SET online = $2, online_changed_at = $3 WHERE id = $1 AND online <> $2 \
                 RETURNING name, owner_id",
            )
            .bind(server.to_string())
            .bind(i64::from(online))
            .bind(now)
            .fetch_optional(&mut *connection)
            .await?;
            match row {
                Some(row) => record_health(connection, server, &row, online).await,
                None => Ok(()),
            }
        })
    });
    write.await
}

/// At the start of the only replica: nobody is linked.
pub async fn set_all_offline(store: &Store, now: i64) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let rows = sqlx::query(
        "UPDATE servers SET online = 0, online_changed_at = $1 WHERE online = 1 RETURNING id, name, owner_id",
    )
    .bind(now)
    .fetch_all(&mut *tx)
    .await?;
    for row in &rows {
        record_health(&mut tx, id(row, "id")?, row, false).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The event of a link that came or went.
async fn record_health(
    connection: &mut AnyConnection,
    server: ServerId,
    row: &AnyRow,
    online: bool,
) -> Result<(), StoreError> {
    let details = [("online", online.into())];
    record(connection, server, EventKind::ServerHealthChanged, row, Actor::Node, &details).await
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
