//! Append-only, numbered migrations, applied at start; a database newer than the binary is refused.

use super::{Store, StoreError};
use hoody_protocol::time::now_ms;

/// Every migration ever, in order. Never edit one that was released.
const MIGRATIONS: &[(i64, &str)] = &[(1, include_str!("../../migrations/0001_foundation.sql"))];

/// Applies what is missing, each migration in one transaction.
pub async fn apply(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS migrations (number BIGINT NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    if store.backend() == super::Backend::Postgres {
        // Replicas that start together take turns; the lock goes with the transaction.
        sqlx::query("LOCK TABLE migrations IN EXCLUSIVE MODE").execute(&mut *tx).await?;
    }
    let found: i64 = sqlx::query_scalar("SELECT CAST(COALESCE(MAX(number), 0) AS BIGINT) FROM migrations")
        .fetch_one(&mut *tx)
        .await?;
    let known = MIGRATIONS.last().map_or(0, |(number, _)| *number);
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (number, sql) in MIGRATIONS.iter().filter(|(number, _)| *number > found) {
        sqlx::raw_sql(*sql).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO migrations (number, applied_at) VALUES ($1, $2)")
            .bind(number)
            .bind(now_ms() as i64)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}
