//! Leases of the processes that serve: which of them live, and so which servers are online. Times are the
//! database's, so that replicas need not agree on the clock.

use super::{Backend, Store, StoreError, node};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::time::Duration;

/// How long a replica counts as alive after its last renewal.
pub const LEASE: Duration = Duration::from_secs(15);
/// Pause between renewals.
pub const RENEWAL: Duration = Duration::from_secs(5);

/// The database's clock, in milliseconds.
pub(super) async fn now(connection: &mut AnyConnection) -> Result<i64, StoreError> {
    let sql = match connection.backend_name() {
        "PostgreSQL" => "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        _ => "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS BIGINT)",
    };
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}

/// A process begins to serve. On SQLite it is the only one: leases that a killed one left are void.
pub async fn begin(store: &Store, replica: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    if store.backend() == Backend::Sqlite {
        sqlx::query("DELETE FROM replicas").execute(&mut *tx).await?;
    }
    let now = now(&mut tx).await?;
    sqlx::query("INSERT INTO replicas (id, started_at, expires_at) VALUES ($1, $2, $3)")
        .bind(replica.to_owned())
        .bind(now)
        .bind(now + LEASE.as_millis() as i64)
        .execute(&mut *tx)
        .await?;
    sweep(&mut tx, now).await?;
    Ok(tx.commit().await?)
}

/// Renews the lease of `replica`, and marks the servers of replicas whose lease has passed as offline. Servers
/// that were linked here while the lease had passed are online again.
pub async fn renew(store: &Store, replica: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let now = now(&mut tx).await?;
    sqlx::query(
        "INSERT INTO replicas (id, started_at, expires_at) VALUES ($1, $2, $3) \
         ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
    )
    .bind(replica.to_owned())
    .bind(now)
    .bind(now + LEASE.as_millis() as i64)
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
        let id: String = row.try_get("id")?;
        let id = id.parse().map_err(|error| StoreError::Corrupt { what: "servers.id", source: Box::new(error) })?;
        node::record_health(connection, id, row, online).await?;
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
            begin(&store, "dead").await.unwrap();
            renew(&store, "living").await.unwrap();
            for (name, replica) in [("one", "dead"), ("two", "living"), ("three", "dead")] {
                let id = server(&store, name).await;
                execute(&store, format!("UPDATE servers SET online = 1, linked_to = '{replica}' WHERE id = '{id}'"))
                    .await;
            }
            let online = async |name: &str| {
                number(&store, &format!("SELECT CAST(online AS BIGINT) FROM servers WHERE name = '{name}'")).await
            };
            renew(&store, "living").await.unwrap();
            assert_eq!((online("one").await, online("two").await), (1, 1), "both leases hold");
            execute(&store, "UPDATE replicas SET expires_at = 1 WHERE id = 'dead'".to_owned()).await;
            renew(&store, "living").await.unwrap();
            assert_eq!((online("one").await, online("two").await, online("three").await), (0, 1, 0));
            // It was only slow: what is linked to it is online again.
            renew(&store, "dead").await.unwrap();
            assert_eq!((online("one").await, online("two").await), (1, 1));
            end(&store, "dead").await.unwrap();
            assert_eq!((online("one").await, online("two").await), (0, 1));
            let mut tx = store.begin().await.unwrap();
            assert_eq!(alive(&mut tx).await.unwrap(), 1);
        })
        .await;
    }
}
