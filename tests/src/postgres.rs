//! A database of its own on the PostgreSQL server of the tests; dropped with its value.

use crate::cluster::run;
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// The variable with the server's URL, as `scripts/postgres.sh start` prints it.
const VARIABLE: &str = "HOODY_TEST_POSTGRES";

/// A new, empty database.
#[derive(Debug)]
pub struct FreshDatabase {
    server: String,
    name: String,
}

impl FreshDatabase {
    /// Makes it on the server that the environment names.
    pub fn create() -> Result<Self> {
        let server = std::env::var(VARIABLE).unwrap_or_default();
        ensure!(
            !server.is_empty(),
            "{VARIABLE} is not set: run `make test`, or set it to what `scripts/postgres.sh start` prints"
        );
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let this = Self { server, name: format!("hoody_cluster_{}", random.trim().replace('-', "_")) };
        this.psql(&this.server, &format!("CREATE DATABASE {}", this.name))?;
        Ok(this)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        match self.server.rsplit_once('/') {
            Some((server, _)) => format!("{server}/{}", self.name),
            None => self.server.clone(),
        }
    }

    /// What a query gives: one line a row, `|` between columns.
    pub fn query(&self, sql: &str) -> Result<String> {
        self.psql(&self.url(), sql)
    }

    fn psql(&self, url: &str, sql: &str) -> Result<String> {
        let arguments = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"];
        run(Command::new("psql").args(arguments).args(["--command", sql, url])).context("psql")
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = self.psql(&self.server, &sql) {
            eprintln!("{error:#}");
        }
    }
}
