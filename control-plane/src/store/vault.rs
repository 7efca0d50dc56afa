//! Sealed values, by user, realm (`''`: outside of realms) and key. How full a realm's vault is stands in a
//! row of its own, whose lock puts writers in turn and which changes only within the limit.

use super::{Store, StoreError};
use hoody_protocol::id::UserId;
use sqlx::{AnyConnection, Row, any::AnyRow};

/// An entry as it is stored.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// The sealed value.
    pub sealed_value: String,
    /// The sealed metadata.
    pub sealed_metadata: Option<String>,
    /// Bytes of value and metadata before they were sealed.
    pub size_bytes: i64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one realm's vault.
    pub bytes: i64,
    /// Entries of one realm's vault.
    pub entries: i64,
    /// Vaults of one user.
    pub realms: i64,
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// So many bytes are in it.
    Bytes(i64),
    /// It has as many entries as it may.
    Entries,
    /// The user has as many vaults as they may.
    Realms,
}

/// The user's sealed data key; where they have none, `sealed` becomes it.
pub async fn data_key(store: &Store, user: UserId, sealed: &str, now: i64) -> Result<String, StoreError> {
    const FIND: &str = "SELECT sealed FROM vault_data_keys WHERE user_id = $1";
    let mut tx = store.begin().await?;
    sqlx::query("INSERT INTO vault_data_keys (user_id, sealed, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(user.to_string())
        .bind(sealed)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    let found = sqlx::query_scalar(FIND).bind(user.to_string()).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(found)
}

/// The user's sealed data key, if they have one.
pub async fn find_data_key(store: &Store, user: UserId) -> Result<Option<String>, StoreError> {
    const FIND: &str = "SELECT sealed FROM vault_data_keys WHERE user_id = $1";
    Ok(sqlx::query_scalar(FIND).bind(user.to_string()).fetch_optional(store.reader()).await?)
}

/// Locks the realm's vault: whoever writes into it is in turn. Gives the entry that has this key now.
pub async fn lock(
    connection: &mut AnyConnection,
    user: UserId,
    realm: &str,
    key: &str,
    limits: Limits,
) -> Result<Result<Option<Entry>, Full>, StoreError> {
    let user = user.to_string();
    // Locks the owner's row, so that two first writes cannot both see the last free place.
    sqlx::query("UPDATE users SET updated_at = updated_at WHERE id = $1").bind(&user).execute(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO vault_usage (user_id, realm_id, size_bytes) SELECT $1, $2, 0 \
         WHERE (SELECT COUNT(*) FROM vault_usage WHERE user_id = $1) < $3 ON CONFLICT DO NOTHING",
    )
    .bind(&user)
    .bind(realm)
    .bind(limits.realms)
    .execute(&mut *connection)
    .await?;
    let locked = sqlx::query("UPDATE vault_usage SET size_bytes = size_bytes WHERE user_id = $1 AND realm_id = $2")
        .bind(&user)
        .bind(realm)
        .execute(&mut *connection)
        .await?;
    if locked.rows_affected() == 0 {
        return Ok(Err(Full::Realms));
    }
    Ok(Ok(find(connection, &user, realm, key).await?))
}

async fn find(connection: &mut AnyConnection, user: &str, realm: &str, key: &str) -> Result<Option<Entry>, StoreError> {
    let row = sqlx::query(SELECT_ONE).bind(user).bind(realm).bind(key).fetch_optional(connection).await?;
    Ok(row.as_ref().map(read).transpose()?)
}

/// Writes an entry in place of `before`, which [`lock`] gave.
pub async fn put(
    connection: &mut AnyConnection,
    user: UserId,
    realm: &str,
    entry: &Entry,
    before: Option<&Entry>,
    limits: Limits,
) -> Result<Result<(), Full>, StoreError> {
    let user = user.to_string();
    let more = entry.size_bytes - before.map_or(0, |before| before.size_bytes);
    let within = sqlx::query(
        "UPDATE vault_usage SET size_bytes = size_bytes + $3 \
         WHERE user_id = $1 AND realm_id = $2 AND (size_bytes + $3 <= $4 OR $3 <= 0)",
    )
    .bind(&user)
    .bind(realm)
    .bind(more)
    .bind(limits.bytes)
    .execute(&mut *connection)
    .await?;
    if within.rows_affected() == 0 {
        let used = sqlx::query_scalar("SELECT size_bytes FROM vault_usage WHERE user_id = $1 AND realm_id = $2");
        return Ok(Err(Full::Bytes(used.bind(&user).bind(realm).fetch_one(connection).await?)));
    }
    if before.is_none() {
        let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM vault_entries WHERE user_id = $1 AND realm_id = $2";
        let count: i64 = sqlx::query_scalar(sql).bind(&user).bind(realm).fetch_one(&mut *connection).await?;
        if count >= limits.entries {
            return Ok(Err(Full::Entries));
        }
    }
    sqlx::query(
        "INSERT INTO vault_entries (user_id, realm_id, key, sealed_value, sealed_metadata, size_bytes, created_at, \
         updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (user_id, realm_id, key) DO UPDATE SET \
         sealed_value = $4, sealed_metadata = $5, size_bytes = $6, updated_at = $8",
    )
    .bind(&user)
    .bind(realm)
    .bind(&entry.key)
    .bind(&entry.sealed_value)
    .bind(entry.sealed_metadata.as_deref())
    .bind(entry.size_bytes)
    .bind(entry.created_at)
    .bind(entry.updated_at)
    .execute(connection)
    .await?;
    Ok(Ok(()))
}

const SELECT_ONE: &str = "SELECT key, sealed_value, sealed_metadata, size_bytes, created_at, updated_at \
    FROM vault_entries WHERE user_id = $1 AND realm_id = $2 AND key = $3";

fn read(row: &AnyRow) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        key: row.try_get("key")?,
        sealed_value: row.try_get("sealed_value")?,
        sealed_metadata: row.try_get("sealed_metadata")?,
        size_bytes: row.try_get("size_bytes")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// Bytes of one entry before it was sealed.
pub async fn size(store: &Store, user: UserId, realm: &str, key: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT size_bytes FROM vault_entries WHERE user_id = $1 AND realm_id = $2 AND key = $3";
    let query = sqlx::query_scalar(sql).bind(user.to_string()).bind(realm).bind(key);
    Ok(query.fetch_optional(store.reader()).await?)
}

/// One entry.
pub async fn get(store: &Store, user: UserId, realm: &str, key: &str) -> Result<Option<Entry>, StoreError> {
    let mut connection = store.reader().acquire().await?;
    find(&mut connection, &user.to_string(), realm, key).await
}

/// Every entry of a realm's vault, without values.
pub async fn list(store: &Store, user: UserId, realm: &str) -> Result<Vec<Entry>, StoreError> {
    let sql = "SELECT key, '' AS sealed_value, sealed_metadata, size_bytes, created_at, updated_at \
         FROM vault_entries WHERE user_id = $1 AND realm_id = $2 ORDER BY key";
    let rows = sqlx::query(sql).bind(user.to_string()).bind(realm).fetch_all(store.reader()).await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// Entries and bytes of a realm's vault.
pub async fn usage(store: &Store, user: UserId, realm: &str) -> Result<(i64, i64), StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT), CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM vault_entries \
         WHERE user_id = $1 AND realm_id = $2";
    Ok(sqlx::query_as(sql).bind(user.to_string()).bind(realm).fetch_one(store.reader()).await?)
}

/// Removes one entry, or all of the realm's; how many it were.
pub async fn delete(store: &Store, user: UserId, realm: &str, key: Option<&str>) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let user = user.to_string();
    // The turn of writers, as in `lock`.
    sqlx::query("UPDATE vault_usage SET size_bytes = size_bytes WHERE user_id = $1 AND realm_id = $2")
        .bind(&user)
        .bind(realm)
        .execute(&mut *tx)
        .await?;
    let deleted =
        sqlx::query("DELETE FROM vault_entries WHERE user_id = $1 AND realm_id = $2 AND ($3 IS NULL OR key = $3)")
            .bind(&user)
            .bind(realm)
            .bind(key)
            .execute(&mut *tx)
            .await?
            .rows_affected();
    let left = "SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM vault_entries \
         WHERE user_id = $1 AND realm_id = $2";
    let left: i64 = sqlx::query_scalar(left).bind(&user).bind(realm).fetch_one(&mut *tx).await?;
    sqlx::query("UPDATE vault_usage SET size_bytes = $3 WHERE user_id = $1 AND realm_id = $2")
        .bind(&user)
        .bind(realm)
        .bind(left)
        .execute(&mut *tx)
        .await?;
    // A vault without entries gives its place back.
    sqlx::query(
        "DELETE FROM vault_usage WHERE user_id = $1 AND realm_id = $2 AND NOT EXISTS \
         (SELECT 1 FROM vault_entries e WHERE e.user_id = $1 AND e.realm_id = $2)",
    )
    .bind(&user)
    .bind(realm)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(deleted)
}
