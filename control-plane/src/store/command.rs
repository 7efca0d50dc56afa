//! The catalogue of commands that can be run on servers. What was run is in [`execution`].

pub mod execution;
pub mod output;
#[cfg(test)]
mod tests;

use super::{Store, StoreError};
use crate::page::Page;
use hoody_protocol::{
    command::{
        Account,
        built_in::{self, BuiltIn, Risk},
    },
    id::{CommandId, UserId},
    time::now_ms,
};
use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Its id.
    pub id: CommandId,
    /// Unique name in requests.
    pub slug: String,
    /// For people.
    pub name: String,
    /// What it does.
    pub description: String,
    /// A word that lists can be narrowed to.
    pub category: String,
    /// How much it can break.
    pub risk: Risk,
    /// Every node knows it.
    pub built_in: bool,
    /// The program and its arguments, with places for parameters.
    pub argv: Vec<String>,
    /// JSON Schema of its parameters.
    pub parameter_schema: Value,
    /// Parameters that it can be called with.
    pub example_parameters: Value,
    /// As whom it runs.
    pub account: Account,
    /// `None`: `/`.
    pub working_directory: Option<String>,
    /// It runs only with a confirmation token.
    pub requires_confirmation: bool,
    /// It can be run.
    pub enabled: bool,
    /// Seconds between two runs on one server.
    pub cooldown_s: Option<i64>,
    /// Runs in an hour on one server.
    pub per_hour: Option<i64>,
    /// Runs in a day on one server.
    pub per_day: Option<i64>,
    /// Seconds that it may run where the caller names none.
    pub default_timeout_s: i64,
    /// Seconds that it may run at most.
    pub max_timeout_s: i64,
    /// How often it was run.
    pub execution_count: i64,
    /// The operator who made it.
    pub created_by: Option<UserId>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

const COLUMNS: &str = "id, slug, name, description, category, risk_level, built_in, argv, parameter_schema, \
    example_parameters, account, working_directory, requires_confirmation, enabled, cooldown_seconds, \
    rate_limit_per_hour, rate_limit_per_day, default_timeout, max_timeout, execution_count, created_by, created_at, \
    updated_at";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(&row.try_get::<String, _>(column)?).map_err(corrupt(what))
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(corrupt("commands"))
}

fn from_row(row: &AnyRow) -> Result<Command, StoreError> {
    let flag = |column: &str| row.try_get::<i64, _>(column).map(|flag| flag != 0);
    let word: String = row.try_get("risk_level")?;
    let risk = Risk::ALL.into_iter().find(|risk| risk.as_str() == word);
    let account = match row.try_get::<String, _>("account")?.as_str() {
        "root" => Account::Root,
        _ => Account::Nobody,
    };
    Ok(Command {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("commands.id"))?,
        slug: row.try_get("slug")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        category: row.try_get("category")?,
        risk: risk.ok_or_else(|| StoreError::Corrupt { what: "commands.risk_level", source: word.into() })?,
        built_in: flag("built_in")?,
        argv: json(row, "argv", "commands.argv")?,
        parameter_schema: json(row, "parameter_schema", "commands.parameter_schema")?,
        example_parameters: json(row, "example_parameters", "commands.example_parameters")?,
        account,
        working_directory: row.try_get("working_directory")?,
        requires_confirmation: flag("requires_confirmation")?,
        enabled: flag("enabled")?,
        cooldown_s: row.try_get("cooldown_seconds")?,
        per_hour: row.try_get("rate_limit_per_hour")?,
        per_day: row.try_get("rate_limit_per_day")?,
        default_timeout_s: row.try_get("default_timeout")?,
        max_timeout_s: row.try_get("max_timeout")?,
        execution_count: row.try_get("execution_count")?,
        created_by: row
            .try_get::<Option<String>, _>("created_by")?
            .map(|text| text.parse())
            .transpose()
            .map_err(corrupt("commands.created_by"))?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

impl Command {
    fn of(known: &BuiltIn, now: i64) -> Self {
        let seconds = |number: Option<u32>| number.map(i64::from);
        Self {
            id: CommandId::generate(),
            slug: known.slug.to_owned(),
            name: known.name.to_owned(),
            description: known.description.to_owned(),
            category: known.category.to_owned(),
            risk: known.risk,
            built_in: true,
            argv: known.argv.iter().map(|part| (*part).to_owned()).collect(),
            parameter_schema: known.parameters.clone(),
            example_parameters: known.example.clone(),
            account: known.account,
            working_directory: None,
            requires_confirmation: known.risk.needs_confirmation(),
            enabled: true,
            cooldown_s: seconds(known.cooldown_s),
            per_hour: seconds(known.per_hour),
            per_day: seconds(known.per_day),
            default_timeout_s: known.default_timeout_s.into(),
            max_timeout_s: known.max_timeout_s.into(),
            execution_count: 0,
            created_by: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// Writes down the commands that this build knows: new ones whole, of others the definition, so that what
/// operators set stays. Those that it does not know any more cannot be run.
pub async fn write_built_in(store: &Store) -> Result<(), StoreError> {
    let now = now_ms() as i64;
    let mut tx = store.begin().await?;
    let known = built_in::all();
    for command in known.iter().map(|known| Command::of(known, now)) {
        put(
            &mut tx,
            &command,
            "ON CONFLICT (slug) DO UPDATE SET name = excluded.name, description = excluded.description, \
             category = excluded.category, risk_level = excluded.risk_level, argv = excluded.argv, \
             parameter_schema = excluded.parameter_schema, example_parameters = excluded.example_parameters, \
             account = excluded.account WHERE commands.built_in = 1",
        )
        .await?;
    }
    let found: Vec<String> =
        sqlx::query_scalar("SELECT slug FROM commands WHERE built_in = 1").fetch_all(&mut *tx).await?;
    for slug in found.iter().filter(|slug| known.iter().all(|known| known.slug != **slug)) {
        sqlx::query("UPDATE commands SET enabled = 0 WHERE slug = $1 AND built_in = 1")
            .bind(slug)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Inserts a command; [`StoreError::Duplicate`] where its slug is taken.
pub async fn insert(connection: &mut AnyConnection, command: &Command) -> Result<(), StoreError> {
    put(connection, command, "").await
}

async fn put(connection: &mut AnyConnection, command: &Command, conflict: &'static str) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO commands ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
         $16, $17, $18, $19, $20, $21, $22, $23) {conflict}"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(command.id.to_string())
        .bind(&command.slug)
        .bind(&command.name)
        .bind(&command.description)
        .bind(&command.category)
        .bind(command.risk.as_str())
        .bind(i64::from(command.built_in))
        .bind(text(&command.argv)?)
        .bind(text(&command.parameter_schema)?)
        .bind(text(&command.example_parameters)?)
        .bind(command.account.as_str())
        .bind(command.working_directory.as_deref())
        .bind(i64::from(command.requires_confirmation))
        .bind(i64::from(command.enabled))
        .bind(command.cooldown_s)
        .bind(command.per_hour)
        .bind(command.per_day)
        .bind(command.default_timeout_s)
        .bind(command.max_timeout_s)
        .bind(command.execution_count)
        .bind(command.created_by.map(|id| id.to_string()))
        .bind(command.created_at)
        .bind(command.updated_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes what can be changed of a command; false where it is gone.
pub async fn update(connection: &mut AnyConnection, command: &Command) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE commands SET name = $2, description = $3, category = $4, risk_level = $5, argv = $6, \
         parameter_schema = $7, example_parameters = $8, account = $9, working_directory = $10, \
         requires_confirmation = $11, enabled = $12, cooldown_seconds = $13, rate_limit_per_hour = $14, \
         rate_limit_per_day = $15, default_timeout = $16, max_timeout = $17, updated_at = $18 WHERE id = $1",
    )
    .bind(command.id.to_string())
    .bind(&command.name)
    .bind(&command.description)
    .bind(&command.category)
    .bind(command.risk.as_str())
    .bind(text(&command.argv)?)
    .bind(text(&command.parameter_schema)?)
    .bind(text(&command.example_parameters)?)
    .bind(command.account.as_str())
    .bind(command.working_directory.as_deref())
    .bind(i64::from(command.requires_confirmation))
    .bind(i64::from(command.enabled))
    .bind(command.cooldown_s)
    .bind(command.per_hour)
    .bind(command.per_day)
    .bind(command.default_timeout_s)
    .bind(command.max_timeout_s)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a command that is not built in; what was run stays. False where there is none.
pub async fn delete(store: &Store, id: CommandId) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let done = sqlx::query("DELETE FROM commands WHERE id = $1 AND built_in = 0")
        .bind(id.to_string())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// The command with this id.
pub async fn by_id<'e>(queries: impl super::Queries<'e>, id: CommandId) -> Result<Option<Command>, StoreError> {
    sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM commands WHERE id = $1")))
        .bind(id.to_string())
        .fetch_optional(queries)
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The command of this name.
pub async fn by_slug<'e>(queries: impl super::Queries<'e>, slug: &str) -> Result<Option<Command>, StoreError> {
    sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM commands WHERE slug = $1")))
        .bind(slug)
        .fetch_optional(queries)
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The commands that can be run, by name; an empty text stands for any.
pub async fn available(store: &Store, category: &str, risk: &str) -> Result<Vec<Command>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM commands WHERE enabled = 1 AND ($1 = '' OR category = $1) \
         AND ($2 = '' OR risk_level = $2) ORDER BY slug"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(category).bind(risk).fetch_all(store.reader()).await?;
    rows.iter().map(from_row).collect()
}

/// One page of all commands, by name, and how many there are.
pub async fn list(store: &Store, page: Page) -> Result<(Vec<Command>, u64), StoreError> {
    let total: i64 =
        sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM commands").fetch_one(store.reader()).await?;
    let rows = sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM commands ORDER BY slug LIMIT $1 OFFSET $2")))
        .bind(page.limit as i64)
        .bind(page.offset() as i64)
        .fetch_all(store.reader())
        .await?;
    Ok((rows.iter().map(from_row).collect::<Result<_, _>>()?, total as u64))
}
