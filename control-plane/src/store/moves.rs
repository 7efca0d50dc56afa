//! Moves of containers to other servers: `copying → syncing → stopping → finishing → starting → done`, or `failed` from
//! any state before `starting`. Of one container there is one at a time. What changes a move has locked its container, where
//! that exists, and says which state it found: of two that do so, one wins.

use super::{Queries, Store, StoreError, container::ContainerRow};
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired, Limits},
    id::{ContainerId, InvalidId, MoveId, ServerId, TransferId, UserId},
    version::SpecVersion,
};
use serde::de::DeserializeOwned;
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use std::{collections::HashSet, str::FromStr};

/// Where a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it is sent while it runs.
    Copying,
    /// What changed meanwhile is sent, while it runs.
    Syncing,
    /// Its server is asked to stop it, and to hold it.
    Stopping,
    /// What changed since is sent; nothing changes it any more.
    Finishing,
    /// It is the target's; it has not been seen there.
    Starting,
    /// The target has it as it should be.
    Done,
    /// It is where it was.
    Failed,
}

impl State {
    const ALL: [Self; 7] =
        [Self::Copying, Self::Syncing, Self::Stopping, Self::Finishing, Self::Starting, Self::Done, Self::Failed];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Syncing => "syncing",
            Self::Stopping => "stopping",
            Self::Finishing => "finishing",
            Self::Starting => "starting",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The source is stopped for it, or is about to be.
    pub fn holds(self) -> bool {
        matches!(self, Self::Stopping | Self::Finishing)
    }

    /// The source is in charge, and it goes on.
    pub fn is_before_switch(self) -> bool {
        matches!(self, Self::Copying | Self::Syncing | Self::Stopping | Self::Finishing)
    }
}

/// A move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Identity.
    pub id: MoveId,
    /// The container.
    pub container: ContainerId,
    /// Its name when it began.
    pub name: String,
    /// From where.
    pub source: ServerId,
    /// To where; `None`: no server could take it.
    pub target: Option<ServerId>,
    /// Who asked.
    pub user: Option<UserId>,
    /// Because its server is being emptied.
    pub drain: bool,
    /// Where it is.
    pub state: State,
    /// What is on its way, or came last.
    pub transfer: Option<TransferId>,
    /// What is reserved on the target.
    pub limits: Limits,
    /// What the container should be once it is on the target; from [`State::Stopping`] on.
    pub desired: Option<Desired>,
    /// The version by which the source is held.
    pub held: Option<SpecVersion>,
    /// Since when.
    pub held_at: Option<i64>,
    /// Bytes that were sent.
    pub bytes: i64,
    /// How long it did not run, milliseconds.
    pub pause_ms: Option<i64>,
    /// Why it failed.
    pub failure: Option<Cause>,
    /// The source keeps nothing of it that is not needed.
    pub source_clean: bool,
    /// So does the target.
    pub target_clean: bool,
    /// When it was asked for.
    pub created_at: i64,
    /// When it was over.
    pub ended_at: Option<i64>,
}

const COLUMNS: &str = "id, container_id, name, source_server_id, target_server_id, user_id, drain, state, transfer_id, \
    limits, desired, held_epoch, held_generation, held_at, bytes, pause_ms, failure, source_clean, target_clean, \
    created_at, ended_at";

fn read(row: &AnyRow) -> Result<Move, StoreError> {
    fn corrupt<E: std::error::Error + Send + Sync + 'static>(error: E) -> StoreError {
        StoreError::Corrupt { what: "moves", source: Box::new(error) }
    }
    fn id<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, StoreError> {
        text.parse().map_err(corrupt)
    }
    fn json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(corrupt)
    }
    let text = |column: &str| row.try_get::<String, _>(column);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    let number = |column: &str| row.try_get::<Option<i64>, _>(column);
    let word = text("state")?;
    let state = State::ALL.into_iter().find(|state| state.as_str() == word);
    let held = number("held_epoch")?.zip(number("held_generation")?);
    Ok(Move {
        id: id(&text("id")?)?,
        container: id(&text("container_id")?)?,
        name: text("name")?,
        source: id(&text("source_server_id")?)?,
        target: optional("target_server_id")?.as_deref().map(id).transpose()?,
        user: optional("user_id")?.and_then(|user| user.parse().ok()),
        drain: row.try_get::<i64, _>("drain")? != 0,
        state: state.ok_or_else(|| StoreError::Corrupt { what: "moves.state", source: word.into() })?,
        transfer: optional("transfer_id")?.as_deref().map(id).transpose()?,
        limits: json(&text("limits")?)?,
        desired: optional("desired")?.as_deref().map(json).transpose()?,
        held: held.map(|(epoch, generation)| SpecVersion {
            epoch: epoch.max(0) as u64,
            generation: generation.max(0) as u64,
        }),
        held_at: number("held_at")?,
        bytes: row.try_get("bytes")?,
        pause_ms: number("pause_ms")?,
        failure: optional("failure")?.as_deref().map(json).transpose()?,
        source_clean: row.try_get::<i64, _>("source_clean")? != 0,
        target_clean: row.try_get::<i64, _>("target_clean")? != 0,
        created_at: row.try_get("created_at")?,
        ended_at: number("ended_at")?,
    })
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt { what: "moves", source: Box::new(error) })
}

impl Move {
    /// A move that was just asked for.
    pub fn new(
        container: &ContainerRow,
        target: Option<ServerId>,
        user: Option<UserId>,
        drain: bool,
        now: i64,
    ) -> Self {
        Self {
            id: MoveId::generate(),
            container: container.spec.id,
            name: container.name.clone(),
            source: container.server,
            target,
            user,
            drain,
            state: State::Copying,
            transfer: None,
            limits: container.spec.limits,
            desired: None,
            held: None,
            held_at: None,
            bytes: 0,
            pause_ms: None,
            failure: None,
            source_clean: false,
            target_clean: false,
            created_at: now,
            ended_at: None,
        }
    }
}

/// Writes a new move down; a second one of its container is refused by the database.
pub async fn insert(connection: &mut AnyConnection, new: &Move) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO moves (id, container_id, name, source_server_id, target_server_id, user_id, drain, state, \
         transfer_id, limits, failure, source_clean, target_clean, created_at, ended_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(new.id.to_string())
    .bind(new.container.to_string())
    .bind(new.name.clone())
    .bind(new.source.to_string())
    .bind(new.target.map(|id| id.to_string()))
    .bind(new.user.map(|id| id.to_string()))
    .bind(i64::from(new.drain))
    .bind(new.state.as_str())
    .bind(new.transfer.map(|id| id.to_string()))
    .bind(text(&new.limits)?)
    .bind(new.failure.as_ref().map(text).transpose()?)
    .bind(i64::from(new.source_clean))
    .bind(i64::from(new.target_clean))
    .bind(new.created_at)
    .bind(new.ended_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the move from the state `from` on to what it is now; false where it was not in that state any more.
pub async fn advance(connection: &mut AnyConnection, from: State, now: &Move) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE moves SET state = $3, transfer_id = $4, desired = $5, held_epoch = $6, held_generation = $7, \
         held_at = $8, bytes = $9, pause_ms = $10, failure = $11, ended_at = $12 WHERE id = $1 AND state = $2",
    )
    .bind(now.id.to_string())
    .bind(from.as_str())
    .bind(now.state.as_str())
    .bind(now.transfer.map(|id| id.to_string()))
    .bind(now.desired.as_ref().map(text).transpose()?)
    .bind(now.held.map(|held| held.epoch as i64))
    .bind(now.held.map(|held| held.generation as i64))
    .bind(now.held_at)
    .bind(now.bytes)
    .bind(now.pause_ms)
    .bind(now.failure.as_ref().map(text).transpose()?)
    .bind(now.ended_at)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The moves of which `condition`, where `id` is `$1`, is true.
async fn some<'e>(queries: impl Queries<'e>, condition: &str, id: String) -> Result<Vec<Move>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM moves WHERE {condition}");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_all(queries).await?;
    rows.iter().map(read).collect()
}

/// The move as it is now.
pub async fn get<'e>(queries: impl Queries<'e>, id: MoveId) -> Result<Option<Move>, StoreError> {
    Ok(some(queries, "id = $1", id.to_string()).await?.pop())
}

/// The container's move that goes on.
pub async fn active<'e>(queries: impl Queries<'e>, container: ContainerId) -> Result<Option<Move>, StoreError> {
    Ok(some(queries, "container_id = $1 AND ended_at IS NULL", container.to_string()).await?.pop())
}

/// The container's newest move, over or not.
pub async fn last<'e>(queries: impl Queries<'e>, container: ContainerId) -> Result<Option<Move>, StoreError> {
    let condition = "container_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1";
    Ok(some(queries, condition, container.to_string()).await?.pop())
}

/// Moves to the server that go on, or of which it still keeps something; and those away from it of which it does.
pub async fn of_link(store: &Store, server: ServerId) -> Result<Vec<Move>, StoreError> {
    let condition = "(target_server_id = $1 AND (ended_at IS NULL OR target_clean = 0)) OR \
        (source_server_id = $1 AND state = 'failed' AND source_clean = 0) ORDER BY created_at, id";
    some(store.reader(), condition, server.to_string()).await
}

/// Moves that go on, and are not the target's yet.
pub async fn before_switch(store: &Store) -> Result<Vec<Move>, StoreError> {
    let condition = "ended_at IS NULL AND state <> $1 ORDER BY created_at, id";
    some(store.reader(), condition, State::Starting.as_str().to_owned()).await
}

/// As [`orphaned`]; of those that go on, which are few, there is an index.
const ORPHANED: &str = "ended_at IS NULL AND state = $1 \
    AND NOT EXISTS (SELECT 1 FROM containers WHERE containers.id = moves.container_id)";

/// Moves that are the target's, and whose container is gone: nobody will say any more that it runs there.
pub async fn orphaned(store: &Store) -> Result<Vec<Move>, StoreError> {
    some(store.reader(), ORPHANED, State::Starting.as_str().to_owned()).await
}

/// Moves away from the server that go on, whenever they began, and those that began since that time; in the order in which
/// they began.
pub async fn away_since(store: &Store, server: ServerId, since: i64) -> Result<Vec<Move>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM moves WHERE source_server_id = $1 AND (created_at >= $2 OR ended_at IS NULL) \
         ORDER BY created_at, id"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(server.to_string()).bind(since).fetch_all(store.reader()).await?;
    rows.iter().map(read).collect()
}

/// How many moves away from the server are not their target's yet.
pub async fn leaving(store: &Store, server: ServerId) -> Result<i64, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM moves WHERE source_server_id = $1 AND ended_at IS NULL \
        AND state <> $2";
    let count = sqlx::query_scalar(sql).bind(server.to_string()).bind(State::Starting.as_str());
    Ok(count.fetch_one(store.reader()).await?)
}

/// The server keeps nothing of the move any more that is not needed.
pub async fn cleaned(connection: &mut AnyConnection, id: MoveId, server: ServerId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE moves SET source_clean = CASE WHEN source_server_id = $2 THEN 1 ELSE source_clean END, \
         target_clean = CASE WHEN target_server_id = $2 THEN 1 ELSE target_clean END WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(server.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends the transfers of the container's moves: nothing is to be based on them any more.
pub async fn end_transfers(connection: &mut AnyConnection, container: ContainerId, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE transfers SET state = 'ended', ended_at = COALESCE(ended_at, $2) \
         WHERE container_id = $1 AND purpose = 'move' AND state <> 'ended'",
    )
    .bind(container.to_string())
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// The transfer is one of a move's.
pub async fn mark_transfer(connection: &mut AnyConnection, id: TransferId) -> Result<(), StoreError> {
    let sql = "UPDATE transfers SET purpose = 'move' WHERE id = $1";
    sqlx::query(sql).bind(id.to_string()).execute(connection).await?;
    Ok(())
}

/// Bytes of a transfer that is kept; where it is only known now that it is, it is from now on.
pub async fn kept(connection: &mut AnyConnection, id: TransferId, now: i64) -> Result<i64, StoreError> {
    let bytes: Option<Option<i64>> = sqlx::query_scalar(
        "UPDATE transfers SET state = 'kept', failure = NULL, ended_at = COALESCE(ended_at, $2) \
         WHERE id = $1 AND state IN ('open', 'kept') RETURNING bytes",
    )
    .bind(id.to_string())
    .bind(now)
    .fetch_optional(connection)
    .await?;
    Ok(bytes.flatten().unwrap_or(0))
}

/// Removes moves that ended before that time; how many.
pub async fn delete_before(store: &Store, before: i64, most: u32) -> Result<u64, StoreError> {
    let write = store.write(move |connection| {
        Box::pin(async move {
            let done = sqlx::query(
                // Of one that is done, what the source deletes is its departure.
                "DELETE FROM moves WHERE id IN (SELECT id FROM moves WHERE ended_at < $1 \
                 AND (source_clean = 1 OR state = 'done') AND target_clean = 1 LIMIT $2)",
            )
            .bind(before)
            .bind(i64::from(most))
            .execute(connection)
            .await?;
            Ok(done.rows_affected())
        })
    });
    write.await
}

/// Removes what is over of moves from and to a server that is being deleted.
pub(super) async fn forget_server(connection: &mut AnyConnection, server: ServerId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM moves WHERE ended_at IS NOT NULL AND (source_server_id = $1 OR target_server_id = $1)")
        .bind(server.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// What keeps a container where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ties {
    /// Containers that mount one of its folders.
    pub mounted_by: i64,
    /// Transfers of it to other containers that are under way, and copies of it that are being made.
    pub copied_by: i64,
}

/// Containers that a share of container `$1` is for, directly or by their project, and in whose text `$2` stands.
const SHARED_WITH: &str = "SELECT c.spec FROM shares s JOIN containers c ON c.id = s.target_container_id \
    WHERE s.source_container_id = $1 AND c.deleted_at IS NULL AND c.spec LIKE $2 UNION ALL \
    SELECT c.spec FROM shares s JOIN containers c ON c.project_id = s.target_project_id \
    WHERE s.source_container_id = $1 AND c.deleted_at IS NULL AND c.spec LIKE $2";
/// Transfers from container `$1` to others and from others to it that are under way.
const SENT: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM transfers WHERE (source_container_id = $1 OR container_id = $1) \
    AND ((purpose = 'copy' AND state = 'open') OR (purpose = 'sync' AND settled_at IS NULL))";
/// Copies of container `$1` that are being made on its server.
const MADE: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM transfers t JOIN containers c ON c.id = t.container_id \
    WHERE t.source_container_id = $1 AND t.purpose = 'copy' AND t.source_server_id = t.target_server_id \
    AND c.status = 'copying'";

/// Counts what keeps the container where it is.
pub async fn ties(connection: &mut AnyConnection, container: ContainerId) -> Result<Ties, StoreError> {
    let mounted_by = mounted_by(connection, container).await?;
    let sent: i64 = sqlx::query_scalar(SENT).bind(container.to_string()).fetch_one(&mut *connection).await?;
    let made: i64 = sqlx::query_scalar(MADE).bind(container.to_string()).fetch_one(connection).await?;
    Ok(Ties { mounted_by, copied_by: sent + made })
}

/// Counts the containers that mount a folder of this one. Who may is in the tables; who does, only the parsed specification
/// says, since tenants write some of its text.
async fn mounted_by(connection: &mut AnyConnection, container: ContainerId) -> Result<i64, StoreError> {
    let rows = sqlx::query(SHARED_WITH)
        .bind(container.to_string())
        .bind(format!("%{container}%"))
        .fetch_all(connection)
        .await?;
    let mut mounting = HashSet::new();
    for row in rows {
        let spec: ContainerSpec = serde_json::from_str(row.try_get("spec")?)
            .map_err(|error| StoreError::Corrupt { what: "containers.spec", source: Box::new(error) })?;
        // One that two shares are for is one.
        if spec.id != container && spec.shares.iter().any(|share| share.source == container) {
            mounting.insert(spec.id);
        }
    }
    Ok(i64::try_from(mounting.len()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
