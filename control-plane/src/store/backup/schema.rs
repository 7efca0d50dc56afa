//! Which tables and columns a database has, whichever migrations made them.

use super::{BackupError, Kind, Table};
use sqlx::AnyConnection;

/// Not part of a backup: a restore makes it anew.
const MIGRATIONS: &str = "migrations";

/// Every table of ours with its columns.
pub(super) async fn tables(connection: &mut AnyConnection) -> Result<Vec<Table>, BackupError> {
    let mut tables = Vec::new();
    for table in names(connection).await?.into_iter().filter(|name| name != MIGRATIONS) {
        let sql = match connection.backend_name() {
            "PostgreSQL" => {
                "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
            }
            _ => "SELECT name, type FROM pragma_table_info($1) ORDER BY cid",
        };
        let found: Vec<(String, String)> = sqlx::query_as(sql).bind(table.clone()).fetch_all(&mut *connection).await?;
        let columns = found.into_iter().map(|(column, kind)| match kind.to_ascii_lowercase().as_str() {
            "text" => Ok((column, Kind::Text)),
            "bigint" => Ok((column, Kind::Bigint)),
            _ => Err(BackupError::Type { table: table.clone(), column, found: kind }),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        tables.push(Table { table, columns });
    }
    Ok(tables)
}

/// The names of all tables; on SQLite in the order in which they were made, so that what a table refers to is
/// before it.
pub(super) async fn names(connection: &mut AnyConnection) -> Result<Vec<String>, BackupError> {
    let sql = match connection.backend_name() {
        "PostgreSQL" => {
            "SELECT CAST(table_name AS TEXT) FROM information_schema.tables \
             WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY 1"
        }
        _ => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid",
    };
    Ok(sqlx::query_scalar(sql).fetch_all(connection).await?)
}

/// A name as it stands in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Lets rows be written in any order: references are checked when [`check_references`] is called.
pub(super) async fn defer_references(connection: &mut AnyConnection) -> Result<(), BackupError> {
    if connection.backend_name() == "PostgreSQL" {
        constraints(connection, "DEFERRABLE INITIALLY DEFERRED").await
    } else {
        // Ends with the transaction, which cannot commit while a reference is missing.
        sqlx::query("PRAGMA defer_foreign_keys = ON").execute(connection).await?;
        Ok(())
    }
}

/// Fails where a reference is missing, and puts the constraints back as they were.
pub(super) async fn check_references(connection: &mut AnyConnection) -> Result<(), BackupError> {
    if connection.backend_name() == "PostgreSQL" {
        sqlx::query("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *connection).await?;
        return constraints(connection, "NOT DEFERRABLE").await;
    }
    let missing = sqlx::query("SELECT 1 FROM pragma_foreign_key_check").fetch_optional(connection).await?;
    if missing.is_some() {
        return Err(BackupError::Damaged("a row refers to another that is not there".to_owned()));
    }
    Ok(())
}

async fn constraints(connection: &mut AnyConnection, when: &str) -> Result<(), BackupError> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT CAST(table_name AS TEXT), CAST(constraint_name AS TEXT) FROM information_schema.table_constraints \
         WHERE table_schema = current_schema() AND constraint_type = 'FOREIGN KEY' ORDER BY 1, 2",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (table, constraint) in found {
        let sql = format!("ALTER TABLE {} ALTER CONSTRAINT {} {when}", quoted(&table), quoted(&constraint));
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(())
}
