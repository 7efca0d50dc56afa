//! Pools: servers that the members of the pool may use.
//!
//! A server is in the pool that its row names, else in its owner's default pool, which has the owner's own
//! id. The owner of a pool has no row among its members.

use super::StoreError;
use hoody_protocol::{id::UserId, time::now_ms};
use sqlx::AnyConnection;

/// Adds the account's default pool.
pub(super) async fn insert_default(connection: &mut AnyConnection, owner: UserId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO pools (id, owner_id, name, is_default, created_at, updated_at) \
         VALUES ($1, $1, 'Default', 1, $2, $2)",
    )
    .bind(owner.to_string())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(())
}
