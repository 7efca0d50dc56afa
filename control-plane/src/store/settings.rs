//! Facts about this database.

use super::{Store, StoreError};
use sqlx::AnyConnection;

/// The epoch of a database that was never restored from a backup.
const FIRST_EPOCH: u64 = 1;

/// Writes down what a new database needs.
pub async fn initialise(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("INSERT INTO settings (key, value) VALUES ('epoch', $1) ON CONFLICT (key) DO NOTHING")
        .bind(FIRST_EPOCH.to_string())
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// Begins another life of this database.
pub async fn set_epoch(connection: &mut AnyConnection, epoch: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO settings (key, value) VALUES ('epoch', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(epoch.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// The life of this database: specifications of a higher epoch win over every one of a lower.
pub async fn epoch(connection: &mut AnyConnection) -> Result<u64, StoreError> {
    let stored: Option<String> =
        sqlx::query_scalar("SELECT value FROM settings WHERE key = 'epoch'").fetch_optional(connection).await?;
    match stored {
        None => Ok(FIRST_EPOCH),
        Some(text) => {
            text.parse().map_err(|error| StoreError::Corrupt { what: "settings.epoch", source: Box::new(error) })
        }
    }
}
