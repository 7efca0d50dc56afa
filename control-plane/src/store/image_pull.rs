//! Pulls of containers' images. A row's claim is good as long as the lease of the replica that made it, and as that is at
//! work on it; whoever ends a pull does so in the transaction that changes the container, on condition that the claim is
//! still theirs.

use super::{Store, StoreError, replica};
use hoody_protocol::{container::Cause, id::ContainerId, time::now_ms};
use sqlx::{AnyConnection, Row, any::AnyRow};

/// Pulls of one account at the same time, so that one does not keep all others waiting.
const MAX_OF_ONE_OWNER: i64 = 2;

/// Where a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullState {
    /// Nobody is at it yet.
    Queued,
    /// A replica is at it.
    Running,
    /// It cannot be done.
    Failed,
}

impl PullState {
    /// The word of the database and of answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Failed => "failed",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Failed].into_iter().find(|state| state.as_str() == word)
    }
}

/// What a container's answer shows of its pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The image.
    pub reference: String,
    /// Where it is.
    pub state: PullState,
    /// Bytes that are there.
    pub bytes_done: u64,
    /// Bytes of all layers; 0: not known yet.
    pub bytes_total: u64,
    /// Why it failed.
    pub failure: Option<Cause>,
}

/// A pull to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPull {
    /// The container.
    pub container: ContainerId,
    /// The image.
    pub reference: String,
    /// Architecture in OCI terms; empty: this program's.
    pub architecture: String,
    /// Sealed; empty: none.
    pub credentials: String,
}

/// The pull of a container's row; its columns begin with `pull_`, and are null without one.
pub(super) fn of_row(row: &AnyRow) -> Result<Option<Pull>, StoreError> {
    let Some(reference) = row.try_get::<Option<String>, _>("pull_reference")? else { return Ok(None) };
    let word: String = row.try_get("pull_state")?;
    let failure: Option<String> = row.try_get("pull_failure")?;
    let corrupt = |what, source| StoreError::Corrupt { what, source };
    Ok(Some(Pull {
        reference,
        state: PullState::parse(&word).ok_or_else(|| corrupt("image_pulls.state", word.into()))?,
        bytes_done: row.try_get::<i64, _>("pull_bytes_done")? as u64,
        bytes_total: row.try_get::<i64, _>("pull_bytes_total")? as u64,
        failure: failure
            .map(|text| serde_json::from_str(&text).map_err(|error| corrupt("image_pulls.failure", error.into())))
            .transpose()?,
    }))
}

/// Adds a pull, queued.
pub async fn insert(connection: &mut AnyConnection, pull: &NewPull) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO image_pulls (container_id, reference, architecture, credentials, state, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, 'queued', $5, $5)",
    )
    .bind(pull.container.to_string())
    .bind(pull.reference.clone())
    .bind(pull.architecture.clone())
    .bind(pull.credentials.clone())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(())
}

/// Bound before the containers that the asking replica is at work on.
const BOUND: usize = 4;

/// Held by nobody: `$1` is the time, `$2` the replica that asks, and `$5` and those behind it the `at_work` containers whose
/// pulls it does. What it has claimed beside them would wait for ever: its end could not be written down.
fn free(at_work: usize) -> String {
    let others = "claimed_by <> $2 AND claimed_by NOT IN (SELECT id FROM replicas WHERE expires_at > $1)";
    let numbers: Vec<String> = (1..=at_work).map(|number| format!("${}", BOUND + number)).collect();
    let beside = match at_work {
        0 => String::new(),
        _ => format!(" AND container_id NOT IN ({})", numbers.join(", ")),
    };
    format!("(state = 'queued' OR (state = 'running' AND (({others}) OR (claimed_by = $2{beside}))))")
}

/// The pulls that are free, the oldest first and `$3` of each owner. A left join: SQLite would begin an inner one with
/// all containers, because they have an index by owner.
fn next(free: &str) -> String {
    format!(
        "SELECT container_id FROM (SELECT ip.container_id, ip.created_at, {free} AS is_free, \
         ROW_NUMBER() OVER (PARTITION BY c.owner_id ORDER BY CASE WHEN {free} THEN 1 ELSE 0 END, ip.created_at, \
         ip.container_id) AS place FROM image_pulls ip LEFT JOIN containers c ON c.id = ip.container_id \
         WHERE ip.state <> 'failed') AS ranked \
         WHERE is_free AND place <= $3 ORDER BY created_at, container_id LIMIT $4"
    )
}

/// Claims up to `limit` pulls for `replica`, the oldest first and a few of each owner. It does those of the containers
/// `at_work`.
pub async fn claim(
    store: &Store,
    replica: &str,
    at_work: &[ContainerId],
    limit: usize,
) -> Result<Vec<NewPull>, StoreError> {
    // Asked after every change of a container: what waits is seen without taking the right to write.
    if sqlx::query("SELECT 1 FROM image_pulls WHERE state <> 'failed' LIMIT 1")
        .fetch_optional(store.reader())
        .await?
        .is_none()
    {
        return Ok(Vec::new());
    }
    let mut tx = store.begin().await?;
    let now = replica::now(&mut tx).await?;
    let free = free(at_work.len());
    // Those of an owner that are held count, so that only what is left of their share is claimed.
    let mut query = sqlx::query(sqlx::AssertSqlSafe(next(&free)))
        .bind(now)
        .bind(replica.to_owned())
        .bind(MAX_OF_ONE_OWNER)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    for id in at_work {
        query = query.bind(id.to_string());
    }
    let rows = query.fetch_all(&mut *tx).await?;
    let mut claimed = Vec::new();
    for row in rows {
        let id: String = row.try_get("container_id")?;
        let sql = format!(
            "UPDATE image_pulls SET state = 'running', claimed_by = $2, updated_at = $4 \
             WHERE container_id = $3 AND {free} RETURNING container_id, reference, architecture, credentials"
        );
        let mut query =
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(now).bind(replica.to_owned()).bind(id).bind(now_ms() as i64);
        for id in at_work {
            query = query.bind(id.to_string());
        }
        let found = query.fetch_optional(&mut *tx).await?;
        claimed.extend(found.as_ref().map(read).transpose()?);
    }
    tx.commit().await?;
    Ok(claimed)
}

fn read(row: &AnyRow) -> Result<NewPull, StoreError> {
    let id: String = row.try_get("container_id")?;
    Ok(NewPull {
        container: id
            .parse()
            .map_err(|error| StoreError::Corrupt { what: "image_pulls.container_id", source: Box::new(error) })?,
        reference: row.try_get("reference")?,
        architecture: row.try_get("architecture")?,
        credentials: row.try_get("credentials")?,
    })
}

/// Whose a pull is that a replica writes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// That replica's: it is written down.
    Ours,
    /// Another's, or nobody's.
    Theirs,
    /// Nobody's any more: its container was deleted, or has its image.
    Gone,
}

/// Notes how far a pull is, where it is `replica`'s.
pub async fn note(
    store: &Store,
    container: ContainerId,
    replica: &str,
    (done, total): (u64, u64),
) -> Result<Noted, StoreError> {
    let replica = replica.to_owned();
    let write = store.write(move |connection| {
        Box::pin(async move {
            let written = sqlx::query(
                "UPDATE image_pulls SET bytes_done = $3, bytes_total = $4, updated_at = $5 \
                 WHERE container_id = $1 AND state = 'running' AND claimed_by = $2",
            )
            .bind(container.to_string())
            .bind(replica)
            .bind(signed(done))
            .bind(signed(total))
            .bind(now_ms() as i64)
            .execute(&mut *connection)
            .await?;
            if written.rows_affected() == 1 {
                return Ok(Noted::Ours);
            }
            let found = sqlx::query("SELECT 1 FROM image_pulls WHERE container_id = $1")
                .bind(container.to_string())
                .fetch_optional(connection)
                .await?;
            Ok(if found.is_some() { Noted::Theirs } else { Noted::Gone })
        })
    });
    write.await
}

/// Ends a pull whose image is there; false where it is not `replica`'s any more.
pub async fn finish(connection: &mut AnyConnection, container: ContainerId, replica: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM image_pulls WHERE container_id = $1 AND state = 'running' AND claimed_by = $2")
        .bind(container.to_string())
        .bind(replica.to_owned())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a pull that cannot be done; false where it is not `replica`'s any more.
pub async fn fail(
    connection: &mut AnyConnection,
    container: ContainerId,
    replica: &str,
    cause: &Cause,
) -> Result<bool, StoreError> {
    let failure = serde_json::to_string(cause)
        .map_err(|error| StoreError::Corrupt { what: "image_pulls.failure", source: Box::new(error) })?;
    let done = sqlx::query(
        "UPDATE image_pulls SET state = 'failed', claimed_by = NULL, failure = $3, updated_at = $4 \
         WHERE container_id = $1 AND state = 'running' AND claimed_by = $2",
    )
    .bind(container.to_string())
    .bind(replica.to_owned())
    .bind(failure)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Queues a pull again that failed: behind those that wait. Who has a pull fail and begins it again would otherwise always be
/// the first.
pub async fn retry(connection: &mut AnyConnection, container: ContainerId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE image_pulls SET state = 'queued', failure = NULL, bytes_done = 0, bytes_total = 0, created_at = $2, \
         updated_at = $2 WHERE container_id = $1 AND state = 'failed'",
    )
    .bind(container.to_string())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "image_pull_tests.rs"]
mod tests;
