//! Facts about the database itself.

use super::{Store, StoreError};

const EPOCH: &str = "epoch";
/// The epoch of a database that was never restored from a backup.
const FIRST_EPOCH: u64 = 1;

/// The database's epoch, which begins every specification's version; set at the first start.
pub async fn epoch(store: &Store) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
        .bind(EPOCH)
        .bind(FIRST_EPOCH.to_string())
        .execute(&mut *tx)
        .await?;
    let text: String =
        sqlx::query_scalar("SELECT value FROM settings WHERE key = $1").bind(EPOCH).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    text.parse().map_err(|error| StoreError::Corrupt { what: "settings.epoch", source: Box::new(error) })
}
