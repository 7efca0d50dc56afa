//! The realms that an account uses.

use super::{Store, StoreError};
use hoody_protocol::id::{RealmId, UserId};
use sqlx::{AssertSqlSafe, Row};
use std::collections::BTreeMap;

/// How much carries a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Projects.
    pub projects: u64,
    /// Containers.
    pub containers: u64,
    /// Auth tokens.
    pub auth_tokens: u64,
}

/// Every realm of the user's projects, containers and auth tokens.
pub async fn list(store: &Store, user: UserId) -> Result<BTreeMap<RealmId, Usage>, StoreError> {
    let mut realms: BTreeMap<RealmId, Usage> = BTreeMap::new();
    // Lists of realms repeat a lot: the database counts the equal ones.
    for (table, owner, condition) in [
        ("projects", "user_id", ""),
        ("containers", "owner_id", "AND deleted_at IS NULL"),
        ("auth_tokens", "user_id", ""),
    ] {
        let sql = format!(
            "SELECT realm_ids, CAST(COUNT(*) AS BIGINT) AS number FROM {table} \
             WHERE {owner} = $1 AND realm_ids <> '[]' {condition} GROUP BY realm_ids"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).fetch_all(store.reader()).await?;
        for row in rows {
            let ids: Vec<RealmId> = serde_json::from_str(&row.try_get::<String, _>("realm_ids")?)
                .map_err(|error| StoreError::Corrupt { what: "realm_ids", source: Box::new(error) })?;
            let number = row.try_get::<i64, _>("number")? as u64;
            for id in ids {
                let usage = realms.entry(id).or_default();
                match table {
                    "projects" => usage.projects += number,
                    "containers" => usage.containers += number,
                    _ => usage.auth_tokens += number,
                }
            }
        }
    }
    Ok(realms)
}
