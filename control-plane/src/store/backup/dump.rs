//! Taking a backup, while the control plane works: one read transaction sees one state of everything.

use super::{BackupError, End, FORMAT, Header, Kind, Table, ZSTD_LEVEL, schema};
use crate::store::{Backend, Store, migrations, settings};
use futures::TryStreamExt;
use hoody_protocol::time::now_ms;
use serde::Serialize;
use serde_json::Value;
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::io::Write;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dumped {
    /// Tables.
    pub tables: usize,
    /// Rows.
    pub rows: u64,
}

/// Writes everything to `out`.
pub async fn dump(store: &Store, out: impl Write) -> Result<Dumped, BackupError> {
    let mut out = zstd::Encoder::new(out, ZSTD_LEVEL)?;
    out.include_checksum(true)?;
    let mut tx = match store.backend() {
        // In WAL mode a transaction that reads sees the state of its first query, and keeps no writer waiting.
        Backend::Sqlite => store.reader().begin_with("BEGIN").await?,
        Backend::Postgres => store.reader().begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?,
    };
    let migrations = migrations::applied(&mut tx).await?;
    let epoch = settings::epoch(&mut tx).await?;
    line(&mut out, &Header { format: FORMAT.to_owned(), migrations, epoch, taken_at: now_ms() })?;
    let tables = schema::tables(&mut tx).await?;
    let mut rows = 0;
    for table in &tables {
        line(&mut out, table)?;
        rows += dump_table(&mut tx, table, &mut out).await?;
    }
    tx.rollback().await?;
    line(&mut out, &End { rows })?;
    out.finish()?.flush()?;
    Ok(Dumped { tables: tables.len(), rows })
}

async fn dump_table(connection: &mut AnyConnection, table: &Table, out: &mut impl Write) -> Result<u64, BackupError> {
    let columns: Vec<String> = table.columns.iter().map(|(name, _)| schema::quoted(name)).collect();
    let sql = format!("SELECT {} FROM {}", columns.join(", "), schema::quoted(&table.table));
    let mut found = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch(connection);
    let mut rows = 0;
    while let Some(row) = found.try_next().await? {
        line(out, &values(&row, table)?)?;
        rows += 1;
    }
    Ok(rows)
}

fn values(row: &AnyRow, table: &Table) -> Result<Vec<Value>, BackupError> {
    let value = |(index, (_, kind)): (usize, &(String, Kind))| {
        Ok(match kind {
            Kind::Text => row.try_get::<Option<String>, _>(index)?.map_or(Value::Null, Value::from),
            Kind::Bigint => row.try_get::<Option<i64>, _>(index)?.map_or(Value::Null, Value::from),
        })
    };
    table.columns.iter().enumerate().map(value).collect()
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), BackupError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
