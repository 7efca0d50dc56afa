//! Server rows as the links see them: identity, what the last hello said, online or not.

use super::{Queries, Store, StoreError, server::record};
use crate::event::{Actor, EventKind};
use hoody_protocol::{
    id::ServerId,
    link::{Hello, NodeFacts},
    time::UnixMs,
    transport::PublicKey,
};
use serde::{Deserialize, Serialize};
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
    /// The replica that has its link.
    pub linked_to: Option<String>,
    /// The agent's process that linked last.
    pub instance: Option<String>,
}

/// Who says hello, and to whom.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The agent's key.
    pub key: PublicKey,
    /// The authority that issued its certificate.
    pub issuer: String,
    /// The replica that it came to.
    pub replica: String,
}

/// An agent that came with the identity of a server whose link was up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityConflict {
    /// When.
    pub at: UnixMs,
    /// From where.
    pub remote: String,
    /// The host name it gave.
    pub hostname: String,
    /// The boot id it gave.
    pub boot_id: String,
}

const COLUMNS: &str = "id, name, status, public_key, CASE WHEN online = 1 THEN linked_to END AS linked_to, instance";

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
        linked_to: row.try_get("linked_to")?,
        instance: row.try_get("instance")?,
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

/// The server's architecture in OCI terms; empty where its agent never said.
pub async fn architecture<'e>(queries: impl Queries<'e>, server: ServerId) -> Result<String, StoreError> {
    let found = sqlx::query_scalar("SELECT architecture FROM servers WHERE id = $1").bind(server.to_string());
    Ok(found.fetch_optional(queries).await?.unwrap_or_default())
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
    if hello.journal_lost > 0 {
        let details = [("online", true.into()), ("journal_lines_lost", hello.journal_lost.into())];
        record(connection, server, EventKind::ServerHealthChanged, &row, Actor::Node, &details).await?;
    }
    if row.try_get::<i64, _>("online")? == 0 {
        record_health(connection, server, &row, true).await?;
    }
    Ok(())
}

/// Thousandths of cores, bytes of memory, bytes of disk; what a hostile node overstates is cut to what the
/// database holds.
/// What the stored facts of a server say about KVM. Of everything else they hold nothing is looked at: this is asked with
/// every container.
pub(super) fn has_kvm(facts: Option<String>) -> bool {
    #[derive(Default, Deserialize)]
    struct Kvm {
        #[serde(default)]
        kvm: bool,
    }
    facts.is_some_and(|text| serde_json::from_str::<Kvm>(&text).unwrap_or_default().kvm)
}

fn capacity(facts: &NodeFacts) -> [i64; 3] {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    [i64::from(facts.cpu_cores) * 1000, signed(facts.memory_bytes), signed(facts.disk_bytes)]
}

/// The server's link is at the replica of `arrival`, with this process of its agent.
pub async fn record_link(
    connection: &mut AnyConnection,
    server: ServerId,
    arrival: &Arrival,
    instance: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE servers SET linked_to = $2, instance = $3, authority = $4 WHERE id = $1")
        .bind(server.to_string())
        .bind(arrival.replica.clone())
        .bind(instance.map(str::to_owned))
        .bind(arrival.issuer.clone())
        .execute(connection)
        .await?;
    Ok(())
}

/// The server's link at this replica has ended. One that another replica has meanwhile stays.
pub async fn set_offline(store: &Store, server: ServerId, replica: &str, now: i64) -> Result<(), StoreError> {
    let replica = replica.to_owned();
    let write = store.write(move |connection| {
        Box::pin(async move {
            let row = sqlx::query(
                "UPDATE servers SET online = 0, linked_to = NULL, online_changed_at = $2 WHERE id = $1 \
                 AND linked_to = $3 RETURNING name, owner_id",
            )
            .bind(server.to_string())
            .bind(now)
            .bind(replica)
            .fetch_optional(&mut *connection)
            .await?;
            match row {
                Some(row) => record_health(connection, server, &row, false).await,
                None => Ok(()),
            }
        })
    });
    write.await
}

/// Writes down that another agent came with the identity of `server`; the last one counts.
pub async fn record_conflict(store: &Store, server: ServerId, conflict: &IdentityConflict) -> Result<(), StoreError> {
    let json = serde_json::to_string(conflict)
        .map_err(|error| StoreError::Corrupt { what: "servers.identity_conflict", source: Box::new(error) })?;
    let mut tx = store.begin().await?;
    sqlx::query("UPDATE servers SET identity_conflict = $2 WHERE id = $1")
        .bind(server.to_string())
        .bind(json)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// Names of servers that may still link with a certificate of another authority than `issuer`.
pub async fn not_moved(store: &Store, issuer: &str) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT name FROM servers WHERE status IN ('enrolled', 'disabled') AND (authority IS NULL OR authority <> $1) \
         ORDER BY name",
    )
    .bind(issuer.to_owned())
    .fetch_all(store.reader())
    .await?)
}

/// The event of a link that came or went.
pub(super) async fn record_health(
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
