//! Executions: persisted before dispatch, one outcome each. `pending → dispatched → completed | failed | timeout |
//! cancelled | interrupted`, or `pending → expired | cancelled`; each step is one conditional update.

use super::{
    super::{Store, StoreError, row_lock, server},
    corrupt, json, text,
};
use crate::{
    event::{Actor, EventKind},
    page::Page,
};
use hoody_protocol::{
    command::{CommandOutcome, CommandRequest, Ending, Order},
    container::Cause,
    id::{CommandId, ExecutionId, ServerId, UserId},
};
use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// States that a list can be narrowed to.
pub const STATES: &[&str] =
    &["pending", "dispatched", "completed", "failed", "timeout", "cancelled", "interrupted", "expired"];
/// Where an execution is not over.
const OPEN: &str = "state IN ('pending', 'dispatched')";
/// Open executions of a server that are sent in one round.
const MAX_READ: i64 = 64;

/// An execution to be written down.
#[derive(Debug, Clone)]
pub struct NewExecution {
    /// Identity.
    pub id: ExecutionId,
    /// The command.
    pub command: CommandId,
    /// Its name.
    pub slug: String,
    /// The server.
    pub server: ServerId,
    /// Who asked.
    pub user: UserId,
    /// As the client sees them.
    pub parameters: Value,
    /// What is sent.
    pub order: Order,
    /// Milliseconds that it may run.
    pub timeout_ms: i64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Not begun by then: never runs.
    pub begin_before: i64,
}

/// An execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// Identity.
    pub id: ExecutionId,
    /// The command, which may be deleted.
    pub command: CommandId,
    /// Its name.
    pub slug: String,
    /// The server.
    pub server: ServerId,
    /// Who asked.
    pub user: UserId,
    /// As the client sent them, with defaults.
    pub parameters: Value,
    /// One of [`STATES`].
    pub state: String,
    /// Why it failed or expired.
    pub failure: Option<Cause>,
    /// Of the program; 128 and more: ended by a signal.
    pub exit_code: Option<i64>,
    /// Somebody asked it to end.
    pub cancel_requested: bool,
    /// There was more output than is kept.
    pub truncated: bool,
    /// Milliseconds that it may run.
    pub timeout_ms: i64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Not begun by then: never runs.
    pub begin_before: i64,
    /// Milliseconds since the epoch.
    pub started_at: Option<i64>,
    /// Milliseconds since the epoch.
    pub finished_at: Option<i64>,
}

impl Execution {
    /// True where it has its outcome.
    pub fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "pending" | "dispatched")
    }
}

const COLUMNS: &str = "id, command_id, slug, server_id, user_id, parameters, state, failure, exit_code, \
    cancel_requested, output_truncated, timeout_ms, created_at, begin_before, started_at, finished_at";

fn from_row(row: &AnyRow) -> Result<Execution, StoreError> {
    let failure: Option<String> = row.try_get("failure")?;
    Ok(Execution {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("command_executions.id"))?,
        command: row.try_get::<String, _>("command_id")?.parse().map_err(corrupt("command_executions.command_id"))?,
        slug: row.try_get("slug")?,
        server: row.try_get::<String, _>("server_id")?.parse().map_err(corrupt("command_executions.server_id"))?,
        user: row.try_get::<String, _>("user_id")?.parse().map_err(corrupt("command_executions.user_id"))?,
        parameters: json(row, "parameters", "command_executions.parameters")?,
        state: row.try_get("state")?,
        failure: failure
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(corrupt("command_executions.failure"))?,
        exit_code: row.try_get("exit_code")?,
        cancel_requested: row.try_get::<i64, _>("cancel_requested")? != 0,
        truncated: row.try_get::<i64, _>("output_truncated")? != 0,
        timeout_ms: row.try_get("timeout_ms")?,
        created_at: row.try_get("created_at")?,
        begin_before: row.try_get("begin_before")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

/// Locks the server's row, so that limits are counted by one transaction at a time; false where there is none.
pub async fn lock_server(connection: &mut AnyConnection, id: ServerId) -> Result<bool, StoreError> {
    let sql = format!("SELECT id FROM servers WHERE id = $1{}", row_lock(connection, "servers"));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(connection).await?;
    Ok(row.is_some())
}

/// When the runs of a command on a server since `since` were asked for, oldest first; those that never ran do not
/// count. At most `limit`, the newest.
pub async fn times(
    connection: &mut AnyConnection,
    command: CommandId,
    server: ServerId,
    since: i64,
    limit: i64,
) -> Result<Vec<i64>, StoreError> {
    let mut times: Vec<i64> = sqlx::query_scalar(
        "SELECT created_at FROM command_executions WHERE command_id = $1 AND server_id = $2 AND created_at > $3 \
         AND (state <> 'expired') ORDER BY created_at DESC LIMIT $4",
    )
    .bind(command.to_string())
    .bind(server.to_string())
    .bind(since)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    times.reverse();
    Ok(times)
}

/// Executions of a server that are not over.
pub async fn count_open(connection: &mut AnyConnection, server: ServerId) -> Result<i64, StoreError> {
    let sql = format!("SELECT CAST(COUNT(*) AS BIGINT) FROM command_executions WHERE server_id = $1 AND {OPEN}");
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(server.to_string()).fetch_one(connection).await?)
}

/// Writes an execution down, and counts it.
pub async fn insert(connection: &mut AnyConnection, execution: &NewExecution) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO command_executions (id, command_id, slug, server_id, user_id, parameters, request, timeout_ms, \
         state, created_at, begin_before) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', $9, $10)",
    )
    .bind(execution.id.to_string())
    .bind(execution.command.to_string())
    .bind(&execution.slug)
    .bind(execution.server.to_string())
    .bind(execution.user.to_string())
    .bind(text(&execution.parameters)?)
    .bind(text(&execution.order)?)
    .bind(execution.timeout_ms)
    .bind(execution.created_at)
    .bind(execution.begin_before)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE commands SET execution_count = execution_count + 1 WHERE id = $1")
        .bind(execution.command.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// The execution with this id on this server.
pub async fn get(store: &Store, server: ServerId, id: ExecutionId) -> Result<Option<Execution>, StoreError> {
    sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM command_executions WHERE id = $1 AND server_id = $2")))
        .bind(id.to_string())
        .bind(server.to_string())
        .fetch_optional(store.reader())
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// One page of a server's executions, newest first, and how many there are; an empty state stands for any.
pub async fn list(
    store: &Store,
    server: ServerId,
    state: &str,
    page: Page,
) -> Result<(Vec<Execution>, u64), StoreError> {
    const WHERE: &str = "server_id = $1 AND ($2 = '' OR state = $2)";
    let count = format!("SELECT CAST(COUNT(*) AS BIGINT) FROM command_executions WHERE {WHERE}");
    let total: i64 =
        sqlx::query_scalar(AssertSqlSafe(count)).bind(server.to_string()).bind(state).fetch_one(store.reader()).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM command_executions WHERE {WHERE} ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(server.to_string())
        .bind(state)
        .bind(page.limit as i64)
        .bind(page.offset() as i64)
        .fetch_all(store.reader())
        .await?;
    Ok((rows.iter().map(from_row).collect::<Result<_, _>>()?, total as u64))
}

/// An execution that its node may not have, or may not have finished.
#[derive(Debug, Clone)]
pub struct Open {
    /// What is sent; `begin_within_ms` is still to be computed.
    pub request: CommandRequest,
    /// Not begun by then: never runs. Milliseconds, our clock.
    pub begin_before: i64,
    /// True where it was sent on some link before.
    pub dispatched: bool,
    /// Somebody asked it to end.
    pub cancel: bool,
}

/// The executions of a server that are not over, oldest first.
pub async fn open(store: &Store, server: ServerId) -> Result<Vec<Open>, StoreError> {
    let sql = format!(
        "SELECT id, request, timeout_ms, begin_before, state, cancel_requested, output_chunks FROM command_executions \
         WHERE server_id = $1 AND {OPEN} ORDER BY created_at, id LIMIT $2"
    );
    let rows =
        sqlx::query(AssertSqlSafe(sql)).bind(server.to_string()).bind(MAX_READ).fetch_all(store.reader()).await?;
    rows.iter()
        .map(|row| {
            Ok(Open {
                request: CommandRequest {
                    id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("command_executions.id"))?,
                    order: json(row, "request", "command_executions.request")?,
                    timeout_ms: row.try_get::<i64, _>("timeout_ms")?.max(0) as u64,
                    begin_within_ms: 0,
                    from: u32::try_from(row.try_get::<i64, _>("output_chunks")?).unwrap_or(u32::MAX),
                },
                begin_before: row.try_get("begin_before")?,
                dispatched: row.try_get::<String, _>("state")? == "dispatched",
                cancel: row.try_get::<i64, _>("cancel_requested")? != 0,
            })
        })
        .collect()
}

/// Marks an execution as sent; false where it ended or its time passed meanwhile.
pub async fn mark_dispatched(store: &Store, id: ExecutionId, now: i64) -> Result<bool, StoreError> {
    let write = store.write(move |connection| {
        Box::pin(async move {
            let done = sqlx::query(
                "UPDATE command_executions SET state = 'dispatched' WHERE id = $1 AND state = 'pending' \
                 AND begin_before > $2",
            )
            .bind(id.to_string())
            .bind(now)
            .execute(connection)
            .await?;
            Ok(done.rows_affected() == 1)
        })
    });
    write.await
}

/// Ends every execution that was not sent and whose time has passed; how many there were.
pub async fn expire(store: &Store, now: i64) -> Result<usize, StoreError> {
    let late: Vec<(String, String)> = sqlx::query_as(
        "SELECT id, server_id FROM command_executions WHERE state = 'pending' AND begin_before <= $1 LIMIT 1000",
    )
    .bind(now)
    .fetch_all(store.reader())
    .await?;
    let cause = Cause::new("expired", "the server did not get it in time; it will not run");
    let mut expired = 0;
    for (id, server) in late {
        let (id, server) = (id.parse().map_err(corrupt("command_executions.id"))?, server);
        let server = server.parse().map_err(corrupt("command_executions.server_id"))?;
        let end = End { state: "expired", failure: Some(cause.clone()), ..End::at(now) };
        let mut tx = store.begin().await?;
        expired += usize::from(finish(&mut tx, server, id, &end, &["pending"]).await?);
        tx.commit().await?;
    }
    Ok(expired)
}

/// Asks for the end of an execution. One that was not sent is over with it. False where it is over already.
pub async fn cancel(
    connection: &mut AnyConnection,
    server: ServerId,
    id: ExecutionId,
    now: i64,
) -> Result<bool, StoreError> {
    let end = End { state: "cancelled", ..End::at(now) };
    if finish(connection, server, id, &end, &["pending"]).await? {
        return Ok(true);
    }
    let done = sqlx::query(
        "UPDATE command_executions SET cancel_requested = 1 WHERE id = $1 AND server_id = $2 AND state = 'dispatched'",
    )
    .bind(id.to_string())
    .bind(server.to_string())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes down how an execution ended; the first outcome counts. False where it had one, or is none of this
/// server's.
pub async fn record_outcome(
    connection: &mut AnyConnection,
    server: ServerId,
    outcome: &CommandOutcome,
    now: i64,
) -> Result<bool, StoreError> {
    let (state, failure) = match &outcome.ending {
        Ending::Exited if outcome.exit_code == Some(0) => ("completed", None),
        // A limit of the node that it reached says why.
        Ending::Exited => ("failed", outcome.cause.clone()),
        Ending::TimedOut => ("timeout", outcome.cause.clone()),
        Ending::Cancelled => ("cancelled", outcome.cause.clone()),
        Ending::Interrupted => {
            let message = "the agent or the server went down while it ran";
            ("interrupted", Some(Cause::new("interrupted", message)))
        }
        Ending::Failed(cause) => ("failed", Some(cause.clone())),
    };
    let time = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    let end = End {
        state,
        failure,
        exit_code: outcome.exit_code,
        truncated: outcome.truncated,
        started_at: outcome.started_at.map(time),
        finished_at: if outcome.started_at.is_some() { time(outcome.ended_at) } else { now },
    };
    finish(connection, server, outcome.id, &end, &["pending", "dispatched"]).await
}

/// Writes down that the node did not take an execution; false where it had an outcome.
pub async fn refuse(
    connection: &mut AnyConnection,
    server: ServerId,
    id: ExecutionId,
    cause: Cause,
    now: i64,
) -> Result<bool, StoreError> {
    let end = End { state: "failed", failure: Some(cause), ..End::at(now) };
    finish(connection, server, id, &end, &["pending", "dispatched"]).await
}

/// How an execution ends.
#[derive(Debug, Clone)]
struct End {
    state: &'static str,
    failure: Option<Cause>,
    exit_code: Option<i32>,
    truncated: bool,
    started_at: Option<i64>,
    finished_at: i64,
}

impl End {
    fn at(now: i64) -> Self {
        Self { state: "", failure: None, exit_code: None, truncated: false, started_at: None, finished_at: now }
    }
}

/// The end and its event. The contract has no kinds for commands: they are updates of their server.
async fn finish(
    connection: &mut AnyConnection,
    server: ServerId,
    id: ExecutionId,
    end: &End,
    from: &[&str],
) -> Result<bool, StoreError> {
    // Servers before their executions, everywhere.
    lock_server(connection, server).await?;
    let states = from.iter().map(|state| format!("'{state}'")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "UPDATE command_executions SET state = $3, failure = $4, exit_code = $5, started_at = $6, finished_at = $7, \
         output_truncated = CASE WHEN $8 = 1 THEN 1 ELSE output_truncated END \
         WHERE id = $1 AND server_id = $2 AND state IN ({states}) RETURNING slug, user_id"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(id.to_string())
        .bind(server.to_string())
        .bind(end.state)
        .bind(end.failure.as_ref().map(text).transpose()?)
        .bind(end.exit_code.map(i64::from))
        .bind(end.started_at)
        .bind(end.finished_at)
        .bind(i64::from(end.truncated))
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(false) };
    let named = sqlx::query("SELECT name, owner_id FROM servers WHERE id = $1")
        .bind(server.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(named) = named else { return Ok(true) };
    let actor = row.try_get::<String, _>("user_id")?.parse().map_or(Actor::System, Actor::User);
    let details = [
        ("command", Value::from(row.try_get::<String, _>("slug")?)),
        ("execution_id", Value::from(id.to_string())),
        ("execution_state", Value::from(end.state)),
        ("exit_code", Value::from(end.exit_code)),
    ];
    server::record(connection, server, EventKind::ServerUpdated, &named, actor, &details).await?;
    Ok(true)
}

/// Deletes up to `limit` executions that ended before `before`; how many there were.
pub async fn delete_before(store: &Store, before: i64, limit: u32) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let done = sqlx::query(
        "DELETE FROM command_executions WHERE id IN \
         (SELECT id FROM command_executions WHERE created_at < $1 LIMIT $2)",
    )
    .bind(before)
    .bind(i64::from(limit))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}
