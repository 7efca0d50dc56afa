//! API requests of users.

use super::{Store, StoreError};
use hoody_protocol::id::{ActivityId, RealmId, UserId};
use sqlx::{Any, AssertSqlSafe, Row, query::Query};

/// Rows of one statement. SQLite looks for the name of every parameter among all of them.
const ROWS_AT_ONCE: usize = 16;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// Identity.
    pub id: ActivityId,
    /// Who sent it.
    pub user: UserId,
    /// HTTP method.
    pub method: String,
    /// Path, without the query.
    pub path: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// Where it came from.
    pub address: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// The realm it was scoped to.
    pub realm: Option<RealmId>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

/// Which requests are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of this user.
    pub user: UserId,
    /// Not before this, milliseconds.
    pub from: Option<i64>,
    /// Before this, milliseconds.
    pub before: Option<i64>,
    /// Smallest status.
    pub min_status: Option<u16>,
    /// Largest status.
    pub max_status: Option<u16>,
    /// HTTP method.
    pub method: Option<&'static str>,
    /// In this realm.
    pub realm: Option<RealmId>,
}

/// What is kept of a user's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests.
    pub records: i64,
    /// Bytes of their texts.
    pub bytes: i64,
    /// When the first was sent.
    pub oldest: Option<i64>,
    /// When the last was sent.
    pub newest: Option<i64>,
}

/// Writes requests; those of accounts that are gone are passed over. Many in one statement: each would otherwise
/// cost as much as the read that it tells of.
pub async fn insert(store: &Store, batch: &[Activity]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    for rows in batch.chunks(ROWS_AT_ONCE) {
        let sql = insertion(rows.len());
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(rows.len() == ROWS_AT_ONCE);
        for row in rows {
            let bytes = row.method.len() + row.path.len() + row.address.len() + row.user_agent.len();
            query = query
                .bind(row.id.to_string())
                .bind(row.user.to_string())
                .bind(&row.method)
                .bind(&row.path)
                .bind(i64::from(row.status))
                .bind(&row.address)
                .bind(&row.user_agent)
                .bind(row.realm.map(|realm| realm.to_string()))
                .bind(bytes as i64)
                .bind(row.created_at);
        }
        query.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The statement for this many rows. Both databases name the columns of `VALUES` column1, column2, …; the types
/// of PostgreSQL's come from the casts.
fn insertion(rows: usize) -> String {
    const TYPES: [&str; 10] = ["TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT"];
    let row = |number: usize| {
        let value = |(index, kind): (usize, &&str)| format!("CAST(${} AS {kind})", number * TYPES.len() + index + 1);
        format!("({})", TYPES.iter().enumerate().map(value).collect::<Vec<_>>().join(", "))
    };
    let rows = (0..rows).map(row).collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO activity_logs (id, user_id, method, path, status, ip_address, user_agent, realm_id, size_bytes, \
         created_at) SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10 \
         FROM (VALUES {rows}) AS fresh WHERE EXISTS (SELECT 1 FROM users WHERE users.id = fresh.column2)"
    )
}

enum Value {
    Text(String),
    Number(i64),
}

fn query(sql: String, filter: &Filter) -> Query<'static, Any, <Any as sqlx::Database>::Arguments> {
    let (_, values) = conditions(filter);
    values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Number(number) => query.bind(number),
    })
}

/// The condition with `$n` for each value.
fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let mut values = vec![Value::Text(filter.user.to_string())];
    let mut text = "user_id = $1".to_owned();
    let given = [
        ("created_at >=", filter.from.map(Value::Number)),
        ("created_at <", filter.before.map(Value::Number)),
        ("status >=", filter.min_status.map(|status| Value::Number(status.into()))),
        ("status <=", filter.max_status.map(|status| Value::Number(status.into()))),
        ("method =", filter.method.map(|method| Value::Text(method.to_owned()))),
        ("realm_id =", filter.realm.map(|realm| Value::Text(realm.to_string()))),
    ];
    for (condition, value) in given {
        if let Some(value) = value {
            values.push(value);
            text.push_str(&format!(" AND {condition} ${}", values.len()));
        }
    }
    (text, values)
}

/// A page of requests, newest first, and how many the filter lets through.
pub async fn list(store: &Store, filter: &Filter, limit: u64, offset: u64) -> Result<(Vec<Activity>, u64), StoreError> {
    let (conditions, _) = conditions(filter);
    let count = format!("SELECT CAST(COUNT(*) AS BIGINT) AS total FROM activity_logs WHERE {conditions}");
    let total: i64 = query(count, filter).fetch_one(store.reader()).await?.try_get("total")?;
    let sql = format!(
        "SELECT id, user_id, method, path, status, ip_address, user_agent, realm_id, created_at FROM activity_logs \
         WHERE {conditions} ORDER BY created_at DESC, id DESC LIMIT {limit} OFFSET {offset}"
    );
    let rows = query(sql, filter).fetch_all(store.reader()).await?;
    let read = |row: &sqlx::any::AnyRow| -> Result<Activity, StoreError> {
        let text = |column: &str| row.try_get::<String, _>(column);
        let realm: Option<String> = row.try_get("realm_id")?;
        Ok(Activity {
            id: text("id")?.parse().map_err(corrupt("activity_logs.id"))?,
            user: text("user_id")?.parse().map_err(corrupt("activity_logs.user_id"))?,
            method: text("method")?,
            path: text("path")?,
            status: row.try_get::<i64, _>("status")? as u16,
            address: text("ip_address")?,
            user_agent: text("user_agent")?,
            realm: realm.map(|id| id.parse()).transpose().map_err(corrupt("activity_logs.realm_id"))?,
            created_at: row.try_get("created_at")?,
        })
    };
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total as u64))
}

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

/// What is kept of a user's requests.
pub async fn stats(store: &Store, user: UserId) -> Result<Stats, StoreError> {
    let row = sqlx::query(
        "SELECT CAST(COUNT(*) AS BIGINT) AS records, CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) AS bytes, \
         MIN(created_at) AS oldest, MAX(created_at) AS newest FROM activity_logs WHERE user_id = $1",
    )
    .bind(user.to_string())
    .fetch_one(store.reader())
    .await?;
    Ok(Stats {
        records: row.try_get("records")?,
        bytes: row.try_get("bytes")?,
        oldest: row.try_get("oldest")?,
        newest: row.try_get("newest")?,
    })
}

/// Removes at most `limit` requests from before `before`; how many it were.
pub async fn delete_before(store: &Store, before: i64, limit: u32) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let deleted = sqlx::query(
        "DELETE FROM activity_logs WHERE id IN (SELECT id FROM activity_logs WHERE created_at < $1 \
         ORDER BY created_at LIMIT $2)",
    )
    .bind(before)
    .bind(i64::from(limit))
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(deleted)
}
