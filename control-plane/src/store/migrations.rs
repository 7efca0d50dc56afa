//! Append-only, numbered migrations, applied at start; a database newer than the binary is refused.

use super::{Store, StoreError};
use hoody_protocol::time::now_ms;
use sqlx::AnyConnection;

/// Every migration ever, in order. Never edit one that was released.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../../migrations/0001_foundation.sql")),
    (3, include_str!("../../migrations/0003_link.sql")),
    (5, include_str!("../../migrations/0005_scale_indexes.sql")),
    (6, include_str!("../../migrations/0006_accounts.sql")),
    (7, include_str!("../../migrations/0007_permissions.sql")),
    (8, include_str!("../../migrations/0008_record.sql")),
    (9, include_str!("../../migrations/0009_sign_in.sql")),
    (10, include_str!("../../migrations/0010_record_and_accounts.sql")),
    (11, include_str!("../../migrations/0011_egress.sql")),
    (12, include_str!("../../migrations/0012_commands.sql")),
    (13, include_str!("../../migrations/0013_ssh_keys.sql")),
    (14, include_str!("../../migrations/0014_snapshots.sql")),
    (15, include_str!("../../migrations/0015_transfers.sql")),
    (16, include_str!("../../migrations/0016_shares.sql")),
    (17, include_str!("../../migrations/0017_registry.sql")),
    (18, include_str!("../../migrations/0018_sync.sql")),
    (19, include_str!("../../migrations/0019_pool_health.sql")),
    (20, include_str!("../../migrations/0020_share_places.sql")),
    (21, include_str!("../../migrations/0021_moves.sql")),
    (22, include_str!("../../migrations/0022_replica_address.sql")),
    (24, include_str!("../../migrations/0024_drain_waiting.sql")),
];

/// Key of PostgreSQL's advisory lock, any number that nothing else uses: "hoodymig" in ASCII. A lock on a
/// table would need the table, which two replicas cannot make at the same time.
const TURN: i64 = 0x686f_6f64_796d_6967;

/// Applies what is missing, each migration in one transaction.
pub async fn apply(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    if store.backend() == super::Backend::Postgres {
        // Replicas that start together take turns; the lock goes with the transaction. (A function without a
        // result is more than the driver can decode.)
        sqlx::query("SELECT CAST(pg_advisory_xact_lock($1) AS TEXT)").bind(TURN).execute(&mut *tx).await?;
    }
    up_to(&mut tx, i64::MAX).await?;
    tx.commit().await?;
    Ok(())
}

/// The number of the newest migration of this build.
pub fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |(number, _)| *number)
}

/// The numbers of the migrations that the database has.
pub async fn applied(connection: &mut AnyConnection) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT number FROM migrations ORDER BY number").fetch_all(connection).await?)
}

/// Applies what is missing up to `last`. Which are there is asked one by one: a database may lack one whose
/// number is below the newest it has.
pub async fn up_to(connection: &mut AnyConnection, last: i64) -> Result<(), StoreError> {
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS migrations (number BIGINT NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)",
    )
    .execute(&mut *connection)
    .await?;
    let found = applied(connection).await?;
    let newest = found.last().copied().unwrap_or(0);
    if newest > self::newest() {
        return Err(StoreError::Newer { found: newest, known: self::newest() });
    }
    for (number, sql) in MIGRATIONS.iter().filter(|(number, _)| *number <= last && !found.contains(number)) {
        sqlx::raw_sql(*sql).execute(&mut *connection).await?;
        sqlx::query("INSERT INTO migrations (number, applied_at) VALUES ($1, $2)")
            .bind(number)
            .bind(now_ms() as i64)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::each_backend;

    const REPLICAS: usize = 4;

    #[tokio::test(flavor = "multi_thread")]
    async fn replicas_can_start_together_on_an_empty_database() {
        each_backend(|store| async move {
            let mut tx = store.begin().await.unwrap();
            let drop = match store.backend() {
                crate::store::Backend::Postgres => "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
                // One process has the file; the second start finds all done.
                crate::store::Backend::Sqlite => "SELECT 1",
            };
            sqlx::raw_sql(drop).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            for outcome in futures::future::join_all((0..REPLICAS).map(|_| apply(&store))).await {
                outcome.unwrap();
            }
        })
        .await;
    }
}
