//! Operations as operators look at them.

use super::{Store, StoreError};
use crate::page::Page;
use hoody_protocol::id::{ContainerId, OperationId};
use sqlx::{AssertSqlSafe, Row, any::AnyRow};

/// States that a list can be narrowed to.
pub const STATES: &[&str] = &["pending", "dispatched", "succeeded", "failed", "expired"];

/// An operation; JSON columns as they are.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// The container.
    pub container_id: String,
    /// The container's server.
    pub server_id: String,
    /// Who asked.
    pub user_id: String,
    /// Position in the container's order.
    pub sequence: i64,
    /// What to do.
    pub kind: serde_json::Value,
    /// One of [`STATES`].
    pub state: String,
    /// Why it failed.
    pub failure: Option<serde_json::Value>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub begin_before: i64,
    /// Milliseconds since the epoch.
    pub finished_at: Option<i64>,
}

const COLUMNS: &str = "id, container_id, server_id, user_id, sequence, kind, state, failure, created_at, begin_before, \
    finished_at";

fn json(text: &str, what: &'static str) -> Result<serde_json::Value, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { what, source: Box::new(error) })
}

fn from_row(row: &AnyRow) -> Result<Operation, StoreError> {
    let failure: Option<String> = row.try_get("failure")?;
    Ok(Operation {
        id: row.try_get("id")?,
        container_id: row.try_get("container_id")?,
        server_id: row.try_get("server_id")?,
        user_id: row.try_get("user_id")?,
        sequence: row.try_get("sequence")?,
        kind: json(&row.try_get::<String, _>("kind")?, "operations.kind")?,
        state: row.try_get("state")?,
        failure: failure.map(|text| json(&text, "operations.failure")).transpose()?,
        created_at: row.try_get("created_at")?,
        begin_before: row.try_get("begin_before")?,
        finished_at: row.try_get("finished_at")?,
    })
}

/// One page of operations, newest first, and how many there are.
pub async fn list(
    store: &Store,
    container: Option<ContainerId>,
    state: Option<&str>,
    page: Page,
) -> Result<(Vec<Operation>, u64), StoreError> {
    // An empty text stands for "any": neither column is ever empty.
    const WHERE: &str = "($1 = '' OR container_id = $1) AND ($2 = '' OR state = $2)";
    let container = container.map(|id| id.to_string()).unwrap_or_default();
    let state = state.unwrap_or_default();
    let total: i64 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT CAST(COUNT(*) AS BIGINT) FROM operations WHERE {WHERE}")))
            .bind(&container)
            .bind(state)
            .fetch_one(store.reader())
            .await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM operations WHERE {WHERE} ORDER BY created_at DESC, sequence DESC, id LIMIT $3 OFFSET $4"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(&container)
        .bind(state)
        .bind(page.limit as i64)
        .bind(page.offset() as i64)
        .fetch_all(store.reader())
        .await?;
    Ok((rows.iter().map(from_row).collect::<Result<_, _>>()?, total as u64))
}

/// The operation with this id.
pub async fn by_id(store: &Store, id: OperationId) -> Result<Option<Operation>, StoreError> {
    sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM operations WHERE id = $1")))
        .bind(id.to_string())
        .fetch_optional(store.reader())
        .await?
        .map(|row| from_row(&row))
        .transpose()
}
