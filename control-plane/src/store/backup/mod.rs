//! Backup and restore of the whole database, in a form of our own that both databases read: a backup of an
//! embedded SQLite can be restored into PostgreSQL and the other way round, and no program of a certain
//! version is needed.
//!
//! The file is one zstd frame with a checksum; inside, one JSON value per line:
//!
//! ```text
//! {"format":"hoody-backup-1","migrations":[1,3],"epoch":1,"taken_at":1700000000000}
//! {"table":"users","columns":[["id","text"],["created_at","bigint"]]}
//! ["65f0…",1700000000000]
//! {"rows":1}
//! ```
//!
//! The last line counts the rows, so that a file that was cut off is refused. Secrets are in it as they are in
//! the database: hashed, or sealed by the master key, which is not in it.

mod dump;
mod load;
mod schema;

pub use dump::{Dumped, dump};
pub use load::{Loaded, Target, load};

use super::StoreError;
use serde::{Deserialize, Serialize};
use std::io;

/// First line's `format`.
const FORMAT: &str = "hoody-backup-1";
/// Compression: quick, and small enough.
const ZSTD_LEVEL: i32 = 3;

/// Why a backup could not be taken or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read or written.
    #[error("read or write the backup")]
    Io(#[from] io::Error),
    /// The file is not a backup, or was cut off or damaged.
    #[error("not a whole backup: {0}")]
    Damaged(String),
    /// A column has a type that backups do not know.
    #[error("table {table} has column {column} of type {found:?}, which backups do not know")]
    Type {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// The backup was taken by a newer build.
    #[error("the backup has migrations {found:?} that this build does not: restore it with the newer build")]
    Newer {
        /// What it has.
        found: Vec<i64>,
    },
    /// The database is not empty.
    #[error("the database is not empty: add --replace to give up what it holds")]
    NotEmpty,
    /// Somebody works with the database.
    #[error("a control plane serves on this database: stop it first (one that was killed counts for 15 s more)")]
    InUse,
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// What a column holds; nothing else is in the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Text,
    Bigint,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    migrations: Vec<i64>,
    epoch: u64,
    taken_at: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Table {
    table: String,
    columns: Vec<(String, Kind)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    rows: u64,
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
