//! Restoring a backup: tables as they were when it was taken, its rows, the migrations since, and a new epoch,
//! all in one transaction. Where anything fails the database is as it was.

use super::{BackupError, End, FORMAT, Header, Kind, Table, schema};
use crate::store::{
    Store,
    epoch::{self, NewEpoch},
    migrations, replica, settings,
};
use hoody_protocol::time::UnixMs;
use serde_json::Value;
use sqlx::AnyConnection;
use std::io::{BufRead, BufReader, Read};

/// Bytes of the longest line: the largest row, with room.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// What may happen to what the database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It must be empty.
    Empty,
    /// It is given up.
    Replace,
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// When the backup was taken.
    pub taken_at: UnixMs,
    /// Rows.
    pub rows: u64,
    /// What began with it.
    pub begun: NewEpoch,
}

/// Restores what `file` holds into `store`, which was only [connected](Store::connect) to.
pub async fn load(store: &Store, file: impl Read, target: Target) -> Result<Loaded, BackupError> {
    let mut lines = Lines { input: BufReader::new(zstd::Decoder::new(file)?), line: String::new() };
    let header: Header = lines.next()?;
    if header.format != FORMAT {
        return Err(BackupError::Damaged(format!("its format is {:?}", header.format)));
    }
    let mut tx = store.begin().await?;
    schema::defer_references(&mut tx).await?;
    let last = make_room(&mut tx, target).await?;
    let newest = header.migrations.last().copied().unwrap_or(0);
    migrations::up_to(&mut tx, newest).await?;
    if migrations::applied(&mut tx).await? != header.migrations {
        return Err(BackupError::Newer { found: header.migrations });
    }
    schema::defer_references(&mut tx).await?;
    let rows = rows(&mut tx, &mut lines).await?;
    schema::check_references(&mut tx).await?;
    migrations::up_to(&mut tx, i64::MAX).await?;
    // An epoch that this very database has had since must not come again either.
    let known = settings::epoch(&mut tx).await?.max(last);
    settings::set_epoch(&mut tx, known).await?;
    let begun = epoch::begin(&mut tx).await?;
    hoody_fault::point!("restore.loaded");
    tx.commit().await?;
    hoody_fault::point!("restore.committed");
    Ok(Loaded { taken_at: header.taken_at, rows, begun })
}

/// Removes the tables that are there, where that is allowed; gives the epoch of what was there.
async fn make_room(connection: &mut AnyConnection, target: Target) -> Result<u64, BackupError> {
    let names = schema::names(connection).await?;
    if names.is_empty() {
        return Ok(0);
    }
    if target == Target::Empty {
        return Err(BackupError::NotEmpty);
    }
    let has = |name: &str| names.iter().any(|known| known == name);
    if has("replicas") && replica::alive(connection).await? > 0 {
        return Err(BackupError::InUse);
    }
    let last = if has("settings") { settings::epoch(connection).await? } else { 0 };
    let cascade = if connection.backend_name() == "PostgreSQL" { " CASCADE" } else { "" };
    // SQLite looks at what a table refers to when it is dropped.
    for name in names.iter().rev() {
        let sql = format!("DROP TABLE {}{cascade}", schema::quoted(name));
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(last)
}

async fn rows(connection: &mut AnyConnection, lines: &mut Lines<impl BufRead>) -> Result<u64, BackupError> {
    let known = schema::tables(connection).await?;
    // Rows that migrations put there are in the backup as they became.
    for table in &known {
        let sql = format!("DELETE FROM {}", schema::quoted(&table.table));
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    let mut current: Option<(Table, String)> = None;
    let mut rows = 0;
    loop {
        match lines.next::<Value>()? {
            Value::Array(values) => {
                let Some((table, sql)) = &current else {
                    return Err(BackupError::Damaged("a row before its table".to_owned()));
                };
                insert(connection, table, sql, values).await?;
                rows += 1;
            }
            object if object.get("table").is_some() => {
                let table: Table = parse(object)?;
                let same = |other: &&Table| {
                    other.table == table.table && table.columns.iter().all(|column| other.columns.contains(column))
                };
                if !known.iter().any(|other| same(&other)) {
                    return Err(BackupError::Damaged(format!("its table {:?} is not ours", table.table)));
                }
                let sql = insertion(&table);
                current = Some((table, sql));
            }
            object => {
                let end: End = parse(object)?;
                if end.rows != rows {
                    return Err(BackupError::Damaged(format!("{rows} of {} rows", end.rows)));
                }
                return Ok(rows);
            }
        }
    }
}

fn insertion(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|(name, _)| schema::quoted(name)).collect();
    let places: Vec<String> = (1..=columns.len()).map(|place| format!("${place}")).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", schema::quoted(&table.table), columns.join(", "), places.join(", "))
}

async fn insert(
    connection: &mut AnyConnection,
    table: &Table,
    sql: &str,
    values: Vec<Value>,
) -> Result<(), BackupError> {
    let damaged = || BackupError::Damaged(format!("a row of {:?} does not fit its columns", table.table));
    if values.len() != table.columns.len() {
        return Err(damaged());
    }
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()));
    for ((_, kind), value) in table.columns.iter().zip(values) {
        query = match (kind, value) {
            (Kind::Text, Value::String(text)) => query.bind(text),
            (Kind::Text, Value::Null) => query.bind(None::<String>),
            (Kind::Bigint, Value::Null) => query.bind(None::<i64>),
            (Kind::Bigint, value) => query.bind(value.as_i64().ok_or_else(damaged)?),
            (Kind::Text, _) => return Err(damaged()),
        };
    }
    query.execute(connection).await?;
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, BackupError> {
    serde_json::from_value(value).map_err(|error| BackupError::Damaged(error.to_string()))
}

/// The lines of the file, one JSON value each.
struct Lines<R> {
    input: R,
    line: String,
}

impl<R: BufRead> Lines<R> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BackupError> {
        self.line.clear();
        let damaged = |error: &dyn std::fmt::Display| BackupError::Damaged(error.to_string());
        let read = (&mut self.input).take(MAX_LINE_BYTES).read_line(&mut self.line).map_err(|error| damaged(&error))?;
        if read == 0 {
            return Err(BackupError::Damaged("it ends early".to_owned()));
        }
        serde_json::from_str(&self.line).map_err(|error| damaged(&error))
    }
}
