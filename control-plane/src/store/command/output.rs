//! What executions wrote, piece by piece. The bounds are kept here too: nodes are not believed.

use super::super::{Store, StoreError};
use hoody_protocol::{
    command::{MAX_CHUNKS, MAX_OUTPUT_BYTES, OutputChunk},
    id::ExecutionId,
};
use sqlx::{AnyConnection, Row};

/// A stored piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Counted from 0 over both streams.
    pub position: i64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// What was written.
    pub content: String,
}

/// Stores the next piece. One that is stored already, or is over the bounds, changes nothing; of the latter it is
/// noted that there was more. False where the execution is over, or another piece is to come first.
pub async fn append(connection: &mut AnyConnection, id: ExecutionId, chunk: &OutputChunk) -> Result<bool, StoreError> {
    // Text columns of PostgreSQL take no NUL.
    let content = chunk.text.replace('\0', "\u{fffd}");
    let next = sqlx::query(
        "UPDATE command_executions SET output_chunks = output_chunks + 1, output_bytes = output_bytes + $3 \
         WHERE id = $1 AND output_chunks = $2 AND output_chunks < $4 AND output_bytes + $3 <= $5 \
         AND state = 'dispatched'",
    )
    .bind(id.to_string())
    .bind(i64::from(chunk.index))
    .bind(content.len() as i64)
    .bind(i64::from(MAX_CHUNKS))
    .bind(MAX_OUTPUT_BYTES as i64)
    .execute(&mut *connection)
    .await?;
    if next.rows_affected() == 1 {
        sqlx::query("INSERT INTO command_output (execution_id, position, stream, content) VALUES ($1, $2, $3, $4)")
            .bind(id.to_string())
            .bind(i64::from(chunk.index))
            .bind(chunk.stream.as_str())
            .bind(content)
            .execute(connection)
            .await?;
        return Ok(true);
    }
    let row = sqlx::query("SELECT output_chunks FROM command_executions WHERE id = $1 AND state = 'dispatched'")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(false) };
    let stored: i64 = row.try_get("output_chunks")?;
    if i64::from(chunk.index) == stored {
        sqlx::query("UPDATE command_executions SET output_truncated = 1 WHERE id = $1")
            .bind(id.to_string())
            .execute(connection)
            .await?;
    }
    Ok(i64::from(chunk.index) <= stored)
}

/// The pieces from `position` on.
pub async fn from(store: &Store, id: ExecutionId, position: i64) -> Result<Vec<Piece>, StoreError> {
    let rows = sqlx::query(
        "SELECT position, stream, content FROM command_output WHERE execution_id = $1 AND position >= $2 \
         ORDER BY position",
    )
    .bind(id.to_string())
    .bind(position)
    .fetch_all(store.reader())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Piece {
                position: row.try_get("position")?,
                stream: row.try_get("stream")?,
                content: row.try_get("content")?,
            })
        })
        .collect()
}
