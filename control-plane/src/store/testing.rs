//! Runs a store test on both databases: SQLite in a temporary folder, and a database of its own on the
//! PostgreSQL server that `HOODY_TEST_POSTGRES` names. Without that variable such a test fails.

use super::Store;
use hoody_protocol::id::RequestId;
use sqlx::AnyPool;
use std::future::Future;

/// The variable with the URL of a database on the test server; the user must be allowed to create others.
pub const POSTGRES: &str = "HOODY_TEST_POSTGRES";

/// Calls `test` with an empty, migrated store of each kind. Both are removed afterwards, also when the
/// test panics; the panic goes on then.
pub async fn each_backend<F, Fut>(test: F)
where
    F: Fn(Store) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (folder, store) = sqlite().await;
    let outcome = tokio::spawn(test(store.clone())).await;
    store.close().await;
    drop(folder);
    resume(outcome);

    let url = std::env::var(POSTGRES).unwrap_or_else(|_| {
        panic!("set {POSTGRES} to a PostgreSQL server's URL, for example postgres://postgres@127.0.0.1:5433/postgres")
    });
    sqlx::any::install_default_drivers();
    let server = super::pool_options(1).connect(&url).await.expect("connect to the test server");
    let name = format!("hoody_test_{}", RequestId::generate());
    run(&server, format!("CREATE DATABASE {name}")).await;
    let store = Store::open(&with_database(&url, &name)).await.expect("open the test database");
    let outcome = tokio::spawn(test(store.clone())).await;
    store.close().await;
    run(&server, format!("DROP DATABASE {name} WITH (FORCE)")).await;
    server.close().await;
    resume(outcome);
}

/// An empty, migrated SQLite store; it lives as long as the folder.
pub async fn sqlite() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("make a temporary folder");
    let url = format!("sqlite://{}", folder.path().join("test.db").display());
    let store = Store::open(&url).await.expect("open the SQLite database");
    (folder, store)
}

/// Fails where SQLite, whose plans need no statistics, would look at every row for the statement.
pub async fn is_indexed(statement: &str) {
    let (_folder, store) = sqlite().await;
    let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sql).fetch_all(store.reader()).await.expect("ask for the plan");
    assert!(!plan.is_empty());
    for (.., step) in plan {
        assert!(!step.starts_with("SCAN") || step.contains(" USING INDEX "), "{step}: {statement}");
    }
}

fn resume(outcome: Result<(), tokio::task::JoinError>) {
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn run(server: &AnyPool, sql: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(server).await.expect("run on the test server");
}

fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let server = address.rsplit_once('/').map_or(address, |(server, _)| server);
    match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    }
}
