//! Everything that the master key seals, for its rotation. A new table with sealed values gets a line in
//! [`TABLES`].

use super::StoreError;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

/// A sealed secret.
#[derive(Debug, Clone)]
pub struct Secret {
    table: &'static Table,
    /// What it was sealed for.
    pub purpose: String,
    /// The row it was sealed for.
    pub id: String,
    /// The sealed text.
    pub sealed: String,
}

#[derive(Debug)]
struct Table {
    name: &'static str,
    id: &'static str,
    sealed: &'static str,
    /// An expression.
    purpose: &'static str,
}

const TABLES: &[Table] = &[
    Table { name: "keys", id: "id", sealed: "sealed", purpose: "purpose" },
    Table { name: "two_factor", id: "user_id", sealed: "sealed", purpose: "'two-factor'" },
    Table { name: "vault_data_keys", id: "user_id", sealed: "sealed", purpose: "'vault-data-key'" },
    Table { name: "containers", id: "id", sealed: "egress_credentials", purpose: "'egress-credentials'" },
    Table { name: "image_pulls", id: "container_id", sealed: "credentials", purpose: "'registry-credentials'" },
];

/// Every sealed secret; those of retired authorities are forgotten, and empty.
pub async fn all(connection: &mut AnyConnection) -> Result<Vec<Secret>, StoreError> {
    let mut found = Vec::new();
    for table in TABLES {
        let Table { name, id, sealed, purpose } = table;
        let lock = super::row_lock(connection, name);
        let sql = format!(
            "SELECT {id} AS id, {sealed} AS sealed, {purpose} AS purpose FROM {name} WHERE {sealed} <> ''{lock}"
        );
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *connection).await? {
            let (purpose, id, sealed) = (row.try_get("purpose")?, row.try_get("id")?, row.try_get("sealed")?);
            found.push(Secret { table, purpose, id, sealed });
        }
    }
    Ok(found)
}

/// Puts a newly sealed text in place of the one before.
pub async fn replace(connection: &mut AnyConnection, secret: &Secret, sealed: &str) -> Result<(), StoreError> {
    let Table { name, id, sealed: column, .. } = secret.table;
    let sql = format!("UPDATE {name} SET {column} = $1 WHERE {id} = $2");
    sqlx::query(AssertSqlSafe(sql)).bind(sealed).bind(&secret.id).execute(connection).await?;
    Ok(())
}

/// Removes what is sealed but kept for a day only: answers to idempotent requests.
pub async fn forget_passing(connection: &mut AnyConnection) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM idempotency_keys WHERE status IS NOT NULL").execute(connection).await?;
    Ok(())
}
