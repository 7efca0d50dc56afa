//! The only place with SQL. One set of portable queries for SQLite and PostgreSQL through sqlx's `Any`
//! driver: `$1` placeholders, TEXT ids and JSON, BIGINT milliseconds and flags, `CAST(… AS BIGINT)`
//! around aggregates.

pub mod activity;
pub mod attempts;
pub mod auth_token;
pub mod backup;
pub mod command;
pub mod container;
pub mod departure;
pub mod device_login;
pub mod dispatch;
pub mod drain;
pub mod epoch;
mod error;
pub mod event;
pub mod firewall_texts;
pub mod free_tier;
pub mod grant;
mod group;
pub mod hello;
pub mod idempotency;
pub mod identity;
pub mod image;
pub mod image_icon;
pub mod image_pull;
pub mod invite_code;
pub mod join_token;
pub mod key;
#[cfg(test)]
pub(crate) mod link_testing;
pub mod mail;
pub mod migrations;
pub mod move_record;
pub mod move_snapshots;
pub mod moves;
pub mod node;
pub mod notification;
pub mod operation;
pub mod operation_list;
pub mod pool;
pub mod profile;
pub mod project;
pub mod project_permission;
pub mod realm;
pub mod replica;
pub mod report;
pub mod reservation;
pub mod scope;
pub mod sealed;
pub mod security_event;
pub mod server;
pub mod server_pool;
pub mod session;
pub mod settings;
pub mod share;
pub mod sign_up;
pub mod snapshot;
pub mod status_log;
pub mod sync;
#[cfg(test)]
pub mod testing;
mod transaction;
pub mod transfer;
pub mod two_factor;
pub mod unknown;
pub mod user;
pub mod user_image;
pub mod vault;
pub mod waitlist;

pub use error::StoreError;
pub use transaction::Transaction;

use crate::config::Secret;
use futures::future::BoxFuture;
use group::Writes;
use sqlx::{AnyConnection, AnyPool, any::AnyPoolOptions};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Which database is behind the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// One file, one writer.
    Sqlite,
    /// A server that several replicas share.
    Postgres,
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Backend,
    read: AnyPool,
    write: AnyPool,
    grouped: Writes,
    /// Told after every commit of this process.
    committed: Arc<Notify>,
    url: Secret,
}

/// Readers of an SQLite database, and connections to PostgreSQL.
const CONNECTIONS: u32 = 16;
/// Longest wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

impl Store {
    /// Opens `sqlite://<path>` or `postgres://…` and applies the migrations.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let store = Self::connect(url).await?;
        migrations::apply(&store).await?;
        command::write_built_in(&store).await?;
        Ok(store)
    }

    /// Opens the database as it is: what is restored makes its own tables.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        if url.starts_with("sqlite:") {
            // One writer: SQLite allows no second, and queueing here is fair where its busy handler is not.
            let write = sqlite_pool(url, 1, "rwc").await?;
            let read = sqlite_pool(url, CONNECTIONS, "rw").await?;
            let committed = Arc::<Notify>::default();
            let grouped = Writes::new(Backend::Sqlite, write.clone(), committed.clone());
            Ok(Self { backend: Backend::Sqlite, read, write, grouped, committed, url: Secret::new(url.to_owned()) })
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = pool_options(CONNECTIONS).connect(url).await?;
            let committed = Arc::<Notify>::default();
            let grouped = Writes::new(Backend::Postgres, pool.clone(), committed.clone());
            Ok(Self {
                backend: Backend::Postgres,
                read: pool.clone(),
                write: pool,
                grouped,
                committed,
                url: Secret::new(url.to_owned()),
            })
        } else {
            Err(StoreError::UnknownUrl)
        }
    }

    /// Which database this is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// For queries that only read.
    pub fn reader(&self) -> &AnyPool {
        &self.read
    }

    /// Connections that are open, and those of them that nobody uses.
    pub fn connections(&self) -> (u32, usize) {
        let read = (self.read.size(), self.read.num_idle());
        match self.backend {
            Backend::Sqlite => (read.0 + self.write.size(), read.1 + self.write.num_idle()),
            Backend::Postgres => read,
        }
    }

    /// An error where the database does not answer.
    pub async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.read).await?;
        Ok(())
    }

    /// Begins a transaction that writes. On SQLite it takes the write lock at once, so that it cannot
    /// fail half-way for want of it.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let inner = match self.backend {
            Backend::Sqlite => self.write.begin_with("BEGIN IMMEDIATE").await?,
            Backend::Postgres => self.write.begin().await?,
        };
        Ok(Transaction::new(inner, self.committed.clone()))
    }

    /// Waits for the next commit of this process; one that was made since the last wait counts. For one
    /// waiter.
    pub async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Runs a small write and commits it; on SQLite together with others that wait at the same time, which is
    /// what lets thousands of links write. It is queries alone, and may go on where the caller gives up.
    pub async fn write<T, F>(&self, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.grouped.run(write).await
    }

    /// On PostgreSQL: calls `notified` for every notification on the channel, until the connection fails.
    pub async fn listen(&self, channel: &str, notified: impl Fn()) -> Result<(), StoreError> {
        let mut listener = sqlx::postgres::PgListener::connect(self.url.reveal()).await?;
        listener.listen(channel).await?;
        loop {
            listener.recv().await?;
            notified();
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Where a query runs: the [`Store::reader`], or a transaction's connection.
pub trait Queries<'e>: sqlx::Executor<'e, Database = sqlx::Any> {}

impl<'e, T: sqlx::Executor<'e, Database = sqlx::Any>> Queries<'e> for T {}

/// Appended to a `SELECT` whose rows of table (alias) `table` nobody else may change before the transaction
/// ends; other rows may still refer to them. On SQLite the transaction already is the only writer.
///
/// Two transactions that lock the same rows in different orders can wait for each other. The order is:
/// accounts, projects, pools, images, containers by id, join tokens, servers; operations come after their container,
/// executions of commands after their server.
fn row_lock(connection: &AnyConnection, table: &str) -> String {
    match connection.backend_name() {
        "PostgreSQL" => format!(" FOR NO KEY UPDATE OF {table}"),
        _ => String::new(),
    }
}

/// Connections are looked at when they are taken, and stay for good: the task that sqlx 0.9 would close idle ones with
/// counts them without a lock, may find less than none, and then turns for ever.
fn pool_options(connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
}

async fn sqlite_pool(url: &str, connections: u32, mode: &str) -> Result<AnyPool, StoreError> {
    let options = pool_options(connections).after_connect(|connection, _| {
        Box::pin(async move {
            for pragma in [
                "PRAGMA busy_timeout = 5000",
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ] {
                sqlx::query(pragma).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    Ok(options.connect(&format!("{url}?mode={mode}")).await?)
}
