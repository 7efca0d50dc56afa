//! Facts about this database.

use super::StoreError;
use sqlx::AnyConnection;

/// The epoch of a database that was never restored from a backup.
const FIRST_EPOCH: u64 = 1;

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
