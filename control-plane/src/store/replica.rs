//! Leases of the processes that serve: which of them live, and so which servers are online. Times are the
//! database's, so that replicas need not agree on the clock.

use super::{Backend, Store, StoreError, node};
use hoody_protocol::id::ServerId;
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use std::{collections::HashMap, time::Duration};

/// How long a replica counts as alive after its last renewal.
pub const LEASE: Duration = Duration::from_secs(15);
/// Pause between renewals.
pub const RENEWAL: Duration = Duration::from_secs(5);

/// Servers that are asked for with one query.
const AT_ONCE: usize = 500;

/// A living replica that has a server's link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The replica.
    pub replica: String,
    /// Where it listens for the others (`host:port`, UDP); `None`: it does not.
    pub address: Option<String>,
}

/// The database's clock, in milliseconds.
pub(super) async fn now(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    let sql = match connection.backend_name() {
        "PostgreSQL" => "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        _ => "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS BIGINT)",
    };
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}

/// A process begins to serve, and listens for the others at `address`. On SQLite it is the only one: leases that a
/// killed one left are void.
pub async fn begin(store: &Store, replica: &str, address: Option<&str>) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    if store.backend() == Backend::Sqlite {
        sqlx::query("DELETE FROM replicas").execute(&mut *tx).await?;
    }
    let now = now(&mut tx).await?;
    sqlx::query("INSERT INTO replicas (id, started_at, expires_at, address) VALUES ($1, $2, $3, $4)")
        .bind(replica.to_owned())
        .bind(now)
        .bind(now + LEASE.as_millis() as i64)
        .bind(address.map(str::to_owned))
        .execute(&mut *tx)
        .await?;
    sweep(&mut tx, now).await?;
    Ok(tx.commit().await?)
}

/// Renews the lease of `replica`, and marks the servers of replicas whose lease has passed as offline. Servers
/// that were linked here while the lease had passed are online again.
pub async fn renew(store: &Store, replica: &str, address: Option<&str>) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let now = now(&mut tx).await?;
    sqlx::query(
        "INSERT INTO replicas (id, started_at, expires_at, address) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, address = excluded.address",
    )
    .bind(replica.to_owned())
    .bind(now)
    .bind(now + LEASE.as_millis() as i64)
    .bind(address.map(str::to_owned))
    .execute(&mut *tx)
    .await?;
    let back = sqlx::query(
        "UPDATE servers SET online = 1, online_changed_at = $2 WHERE linked_to = $1 AND online = 0 \
         RETURNING id, name, owner_id",
    )
    .bind(replica.to_owned())
    .bind(now)
    .fetch_all(&mut *tx)
    .await?;
    record_health(&mut tx, &back, true).await?;
    sweep(&mut tx, now).await?;
    Ok(tx.commit().await?)
}

/// The process ends in order.
pub async fn end(store: &Store, replica: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM replicas WHERE id = $1").bind(replica.to_owned()).execute(&mut *tx).await?;
    let now = now(&mut tx).await?;
    sweep(&mut tx, now).await?;
    Ok(tx.commit().await?)
}

/// Replicas whose lease has not passed.
pub async fn alive(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    let now = now(connection).await?;
    Ok(sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM replicas WHERE expires_at > $1")
        .bind(now)
        .fetch_one(connection)
        .await?)
}

/// True where the replica's lease has not passed.
pub async fn is_alive(connection: &mut AnyConnection, replica: &str) -> Result<bool, StoreError> {
    let now = now(connection).await?;
    let found: i64 =
        sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM replicas WHERE id = $1 AND expires_at > $2")
            .bind(replica.to_owned())
            .bind(now)
            .fetch_one(connection)
            .await?;
    Ok(found > 0)
}

/// Of these servers, those that are linked to a living replica, and to which.
pub async fn holders(store: &Store, servers: &[ServerId]) -> Result<HashMap<ServerId, Holder>, StoreError> {
    let mut connection = store.reader().acquire().await?;
    let now = now(&mut connection).await?;
    let mut found = HashMap::new();
    for servers in servers.chunks(AT_ONCE) {
        let places: Vec<String> = (2..servers.len() + 2).map(|place| format!("${place}")).collect();
        let sql = format!(
            "SELECT servers.id, replicas.id AS replica, replicas.address FROM servers \
             JOIN replicas ON replicas.id = servers.linked_to \
             WHERE servers.online = 1 AND replicas.expires_at > $1 AND servers.id IN ({})",
            places.join(", ")
        );
        // Made of numbers of places alone.
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(now);
        for server in servers {
            query = query.bind(server.to_string());
        }
        for row in query.fetch_all(&mut *connection).await? {
            let holder = Holder { replica: row.try_get("replica")?, address: row.try_get("address")? };
            found.insert(server_of(&row)?, holder);
        }
    }
    Ok(found)
}

/// True where both replicas announce an address, by which either is reached from the other.
pub async fn reach_each_other(store: &Store, one: &str, other: &str) -> Result<bool, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM replicas WHERE id IN ($1, $2) AND address IS NOT NULL";
    let query = sqlx::query_scalar::<_, i64>(sql).bind(one.to_owned()).bind(other.to_owned());
    Ok(query.fetch_one(store.reader()).await? == 2)
}

fn server_of(row: &AnyRow) -> Result<ServerId, StoreError> {
    let id: String = row.try_get("id")?;
    id.parse().map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })
}

async fn sweep(connection: &mut AnyConnection, now: i64) -> Result<(), StoreError> {
    let gone = sqlx::query(
        "UPDATE servers SET online = 0, online_changed_at = $1 WHERE online = 1 AND (linked_to IS NULL OR \
         linked_to NOT IN (SELECT id FROM replicas WHERE expires_at > $1)) RETURNING id, name, owner_id",
    )
    .bind(now)
    .fetch_all(&mut *connection)
    .await?;
    record_health(connection, &gone, false).await?;
    // Leases that passed long ago are of processes that never come back.
    sqlx::query("DELETE FROM replicas WHERE expires_at < $1")
        .bind(now - 10 * LEASE.as_millis() as i64)
        .execute(connection)
        .await?;
    Ok(())
}

async fn record_health(connection: &mut AnyConnection, rows: &[AnyRow], online: bool) -> Result<(), StoreError> {
    for row in rows {
        node::record_health(connection, server_of(row)?, row, online).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        link_testing::{execute, number, server},
        testing::each_backend,
    };

    #[tokio::test]
    async fn a_dead_replicas_servers_go_offline_and_a_living_ones_stay() {
        each_backend(|store| async move {
            begin(&store, "dead", None).await.unwrap();
            renew(&store, "living", None).await.unwrap();
            for (name, replica) in [("one", "dead"), ("two", "living"), ("three", "dead")] {
                let id = server(&store, name).await;
                execute(&store, format!("UPDATE servers SET online = 1, linked_to = '{replica}' WHERE id = '{id}'"))
                    .await;
            }
            let online = async |name: &str| {
                number(&store, &format!("SELECT CAST(online AS BIGINT) FROM servers WHERE name = '{name}'")).await
            };
            renew(&store, "living", None).await.unwrap();
            assert_eq!((online("one").await, online("two").await), (1, 1), "both leases hold");
            execute(&store, "UPDATE replicas SET expires_at = 1 WHERE id = 'dead'".to_owned()).await;
            renew(&store, "living", None).await.unwrap();
            assert_eq!((online("one").await, online("two").await, online("three").await), (0, 1, 0));
            // It was only slow: what is linked to it is online again.
            renew(&store, "dead", None).await.unwrap();
            assert_eq!((online("one").await, online("two").await), (1, 1));
            end(&store, "dead").await.unwrap();
            assert_eq!((online("one").await, online("two").await), (0, 1));
            let mut tx = store.begin().await.unwrap();
            assert_eq!(alive(&mut tx).await.unwrap(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn who_has_a_servers_link_is_a_living_replica_with_its_address() {
        each_backend(|store| async move {
            begin(&store, "told", Some("10.0.0.1:1")).await.unwrap();
            renew(&store, "silent", None).await.unwrap();
            renew(&store, "dead", Some("10.0.0.3:1")).await.unwrap();
            let mut servers = Vec::new();
            for (name, replica, online) in
                [("a", "told", 1), ("b", "silent", 1), ("c", "dead", 1), ("d", "told", 0), ("e", "nobody", 1)]
            {
                let id = server(&store, name).await;
                let link = format!("UPDATE servers SET online = {online}, linked_to = '{replica}' WHERE id = '{id}'");
                execute(&store, link).await;
                servers.push(id);
            }
            execute(&store, "UPDATE replicas SET expires_at = 1 WHERE id = 'dead'".to_owned()).await;
            let found = holders(&store, &servers).await.unwrap();
            let holder = |replica: &str, address: Option<&str>| Holder {
                replica: replica.to_owned(),
                address: address.map(str::to_owned),
            };
            let expected = [(servers[0], holder("told", Some("10.0.0.1:1"))), (servers[1], holder("silent", None))];
            assert_eq!(found, expected.into());
            renew(&store, "told", Some("10.0.0.9:1")).await.unwrap();
            let moved = holders(&store, &servers[..1]).await.unwrap();
            assert_eq!(moved[&servers[0]].address.as_deref(), Some("10.0.0.9:1"), "a renewal brings the address along");
            assert!(holders(&store, &[]).await.unwrap().is_empty());
        })
        .await;
    }
}
