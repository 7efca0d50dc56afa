//! What nodes report, written down: the last report of a container, its status word, and the status log.

use super::{Store, StoreError, container::Status, departure, event, status_log};
use crate::event::{Actor, EventKind, container::Identity};
use hoody_protocol::{
    container::{Cause, ContainerSpec, State, StatusReport},
    id::{ContainerId, ProjectId, RealmId, ServerId, UserId},
    image::Digest,
    version::SpecVersion,
};
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row, any::AnyRow};

/// A report as it is stored: readable as a [`StatusReport`], with its place in the node's journal.
#[derive(Debug, Serialize, Deserialize)]
struct StoredReport {
    #[serde(flatten)]
    report: StatusReport,
    /// Position in the journal of the node; tells a replay from news.
    #[serde(default)]
    position: u64,
}

/// Code of the cause where memory ran out, in reports and in the log.
pub const OUT_OF_MEMORY: &str = "out_of_memory";

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Stored.
    Stored,
    /// The node confirmed that nothing is left of a container with a tombstone: its row may go.
    Gone,
    /// Older than what is stored, or stored before.
    Stale,
    /// Of a specification that was never sent.
    Ahead,
    /// Of a container that has moved away from this server.
    Departed,
    /// Not a container of this server.
    Foreign,
}

/// The contract's status word for a state; `None`: the word that stands remains.
fn word(state: State) -> Option<Status> {
    match state {
        State::Creating => Some(Status::Creating),
        State::Stopped => Some(Status::Stopped),
        State::Running => Some(Status::Running),
        State::Paused => Some(Status::Paused),
        State::Failed => Some(Status::Failed),
        State::Deleting => Some(Status::Deleting),
        // On the way: the contract has no words for it.
        State::Starting | State::Stopping => None,
        // With a tombstone the row goes; without one the container is not what it should be.
        State::Deleted => Some(Status::Failed),
    }
}

/// Applies the report at `position` of the journal of `server`.
pub async fn apply(
    connection: &mut AnyConnection,
    server: ServerId,
    position: u64,
    report: &StatusReport,
    now: i64,
) -> Result<Applied, StoreError> {
    let sql = format!(
        "SELECT epoch, generation, status, status_changed_at, report, deleted_at, owner_id, project_id, name, realm_ids \
         FROM containers \
         WHERE id = $1 AND server_id = $2{}",
        super::row_lock(connection, "containers")
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(report.container.to_string())
        .bind(server.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else {
        let departed = departure::report(connection, server, report).await?;
        return Ok(if departed { Applied::Departed } else { Applied::Foreign });
    };
    let current = SpecVersion {
        epoch: row.try_get::<i64, _>("epoch")?.max(0) as u64,
        generation: row.try_get::<i64, _>("generation")?.max(0) as u64,
    };
    if report.version > current {
        return Ok(Applied::Ahead);
    }
    let before = match row.try_get::<Option<String>, _>("report")? {
        Some(text) => Some(
            serde_json::from_str::<StoredReport>(&text)
                .map_err(|error| StoreError::Corrupt { what: "containers.report", source: Box::new(error) })?,
        ),
        None => None,
    };
    if before.as_ref().is_some_and(|before| is_stale(before, position, report)) {
        return Ok(Applied::Stale);
    }
    let deleted = report.state == State::Deleted && report.version == current;
    if deleted && row.try_get::<Option<i64>, _>("deleted_at")?.is_some() {
        return Ok(Applied::Gone);
    }
    let stored = serde_json::to_string(&StoredReport { report: report.clone(), position })
        .map_err(|error| StoreError::Corrupt { what: "containers.report", source: Box::new(error) })?;
    sqlx::query("UPDATE containers SET report = $2 WHERE id = $1")
        .bind(report.container.to_string())
        .bind(stored)
        .execute(&mut *connection)
        .await?;
    // A report of an older specification does not take back the word of the newer one.
    if report.version == current {
        let from: String = row.try_get("status")?;
        let since: i64 = row.try_get("status_changed_at")?;
        // What occurred while the link was down keeps its time; clocks that disagree change no order.
        let at = i64::try_from(report.at).unwrap_or(i64::MAX).clamp(since.min(now), now);
        let known = before.as_ref().and_then(|before| before.report.cause.as_ref()).map(|cause| &cause.code);
        match word(report.state) {
            // The contract's word for the making of a copy.
            Some(Status::Creating) if from == Status::Copying.as_str() => {}
            Some(to) if to.as_str() != from => {
                change_word(connection, report, to, at).await?;
                log(connection, &row, report, to, Some((at - since).max(0)), at).await?;
            }
            // Something occurred that left the word as it is: a repair, another reason for a failure.
            Some(to) if report.cause.as_ref().is_some_and(|cause| Some(&cause.code) != known) => {
                log(connection, &row, report, to, None, at).await?;
            }
            _ => {}
        }
    }
    if report.version == current
        && let Some(cause) = egress_news(before.as_ref().map(|before| &before.report), report)
    {
        log_egress(connection, &row, report, cause, now).await?;
    }
    if let Some(killed) = newly_killed(before.as_ref(), report) {
        log_killed(connection, report, row.try_get("status")?, killed, now).await?;
    }
    Ok(Applied::Stored)
}

/// Older by version; or a replay: not later in the journal, and not taken later either (a journal that
/// begins anew counts from 1 again).
fn is_stale(before: &StoredReport, position: u64, report: &StatusReport) -> bool {
    let last = &before.report;
    report.version < last.version
        || (report.version == last.version && position <= before.position && report.at <= last.at)
}

/// How many processes the kernel ended for lack of memory since the report before, in the same run.
fn newly_killed(before: Option<&StoredReport>, report: &StatusReport) -> Option<u64> {
    let same_run = before.filter(|before| before.report.started_at == report.started_at);
    let known = same_run.map_or(0, |before| before.report.oom_kills);
    report.oom_kills.checked_sub(known).filter(|killed| *killed > 0)
}

/// Code of the cause where a container's egress works again, in the log.
pub const EGRESS_RESTORED: &str = "egress_restored";

/// What is to be noted of the container's egress: why it fails, where that is news, or that it works again.
fn egress_news(before: Option<&StatusReport>, report: &StatusReport) -> Option<Cause> {
    let failing = |report: &StatusReport| report.egress.as_ref().filter(|egress| !egress.working).cloned();
    let known = before.and_then(failing);
    match (&report.egress, known) {
        (Some(now), known) if !now.working => {
            let code = |cause: &Option<Cause>| cause.as_ref().map(|cause| cause.code.clone());
            let same = known.is_some_and(|known| code(&known.cause) == code(&now.cause));
            let unknown = || Cause::new("egress_failed", "nothing leaves the container");
            (!same).then(|| now.cause.clone().unwrap_or_else(unknown))
        }
        (Some(_), Some(_)) => Some(Cause::new(EGRESS_RESTORED, "the container's egress works again")),
        _ => None,
    }
}

/// Notes how a container's egress fares: an entry whose status before and after are the same, and an event.
async fn log_egress(
    connection: &mut AnyConnection,
    row: &AnyRow,
    report: &StatusReport,
    cause: Cause,
    now: i64,
) -> Result<(), StoreError> {
    let corrupt = |what| move |error| StoreError::Corrupt { what, source: Box::new(error) };
    let status: String = row.try_get("status")?;
    let at = i64::try_from(report.at).unwrap_or(i64::MAX).min(now);
    let working = &*cause.code == EGRESS_RESTORED;
    let metadata = Metadata { cause: Some(&cause), exit_code: None, version: report.version.to_string() };
    let metadata = serde_json::to_string(&metadata).map_err(corrupt("status_logs.metadata"))?;
    let name: String = row.try_get("name")?;
    let (realms, owner, project) = parties(row)?;
    let identity = Identity { id: report.container, owner, project, name: &name, realms: &realms };
    let told = serde_json::to_value(&cause).map_err(corrupt("events.payload"))?;
    let event = identity
        .event(EventKind::ContainerResourceUpdated, Actor::Node)
        .with("changed", vec!["network_status"])
        .with("network_status", if working { "running" } else { "error" })
        .with("cause", told)
        .with("occurred_at", at);
    event::insert(connection, &event).await?;
    let entry = status_log::Entry {
        container: report.container,
        from: Some(&status),
        to: &status,
        trigger: status_log::Trigger::Node,
        metadata: Some(metadata),
        duration_ms: None,
        at,
    };
    status_log::add(connection, entry).await
}

/// Realms, owner and project of a row.
fn parties(row: &AnyRow) -> Result<(Vec<RealmId>, UserId, ProjectId), StoreError> {
    fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
        move |error| StoreError::Corrupt { what, source: Box::new(error) }
    }
    let realms =
        serde_json::from_str(&row.try_get::<String, _>("realm_ids")?).map_err(corrupt("containers.realm_ids"))?;
    let owner = row.try_get::<String, _>("owner_id")?.parse().map_err(corrupt("containers.owner_id"))?;
    let project = row.try_get::<String, _>("project_id")?.parse().map_err(corrupt("containers.project_id"))?;
    Ok((realms, owner, project))
}

/// Notes processes that ended for lack of memory while the container goes on: an entry whose status before
/// and after are the same.
async fn log_killed(
    connection: &mut AnyConnection,
    report: &StatusReport,
    status: String,
    killed: u64,
    now: i64,
) -> Result<(), StoreError> {
    let cause = Cause::new(
        OUT_OF_MEMORY,
        format!("{killed} processes were ended because the container used more memory than its limit"),
    );
    let metadata = Metadata { cause: Some(&cause), exit_code: None, version: report.version.to_string() };
    let metadata = serde_json::to_string(&metadata)
        .map_err(|error| StoreError::Corrupt { what: "status_logs.metadata", source: Box::new(error) })?;
    let entry = status_log::Entry {
        container: report.container,
        from: Some(&status),
        to: &status,
        trigger: status_log::Trigger::Node,
        metadata: Some(metadata),
        duration_ms: None,
        at: i64::try_from(report.at).unwrap_or(i64::MAX).min(now),
    };
    status_log::add(connection, entry).await
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    version: String,
}

async fn change_word(
    connection: &mut AnyConnection,
    report: &StatusReport,
    to: Status,
    at: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE containers SET status = $2, status_changed_at = $3, updated_at = $3 WHERE id = $1")
        .bind(report.container.to_string())
        .bind(to.as_str())
        .bind(at)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Writes the row of the status log and the event.
async fn log(
    connection: &mut AnyConnection,
    row: &AnyRow,
    report: &StatusReport,
    to: Status,
    duration_ms: Option<i64>,
    at: i64,
) -> Result<(), StoreError> {
    let metadata =
        Metadata { cause: report.cause.as_ref(), exit_code: report.exit_code, version: report.version.to_string() };
    let metadata = serde_json::to_string(&metadata)
        .map_err(|error| StoreError::Corrupt { what: "status_logs.metadata", source: Box::new(error) })?;
    let from: String = row.try_get("status")?;
    record(connection, row, report, &from, to, at).await?;
    let entry = status_log::Entry {
        container: report.container,
        from: Some(&from),
        to: to.as_str(),
        trigger: status_log::Trigger::Node,
        metadata: Some(metadata),
        duration_ms,
        at,
    };
    status_log::add(connection, entry).await
}

/// Writes the event of a new status word.
async fn record(
    connection: &mut AnyConnection,
    row: &AnyRow,
    report: &StatusReport,
    from: &str,
    to: Status,
    at: i64,
) -> Result<(), StoreError> {
    fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
        move |error| StoreError::Corrupt { what, source: Box::new(error) }
    }
    let name: String = row.try_get("name")?;
    let (realms, owner, project) = parties(row)?;
    let identity = Identity { id: report.container, owner, project, name: &name, realms: &realms };
    let mut event = identity.status(Some(from), to, Actor::Node).with("occurred_at", at);
    if let Some(cause) = &report.cause {
        event = event.with("cause", serde_json::to_value(cause).map_err(corrupt("events.payload"))?);
    }
    if let Some(code) = report.exit_code {
        event = event.with("exit_code", code);
    }
    event::insert(connection, &event).await?;
    Ok(())
}

/// The node did not accept a specification: stored as if it had reported the failure.
pub async fn refuse(
    connection: &mut AnyConnection,
    server: ServerId,
    spec: &ContainerSpec,
    cause: Cause,
    now: i64,
) -> Result<Applied, StoreError> {
    let report = StatusReport {
        container: spec.id,
        version: spec.version,
        state: State::Failed,
        converged: false,
        cause: Some(cause),
        exit_code: None,
        address: None,
        started_at: None,
        firewall_error: None,
        limits_error: None,
        ssh_key_error: None,
        oom_kills: 0,
        egress: None,
        share_failures: Default::default(),
        at: now as u64,
    };
    apply(connection, server, 0, &report, now).await
}

/// True where a container of `server` is made from an image with this layer.
pub async fn may_fetch(store: &Store, server: ServerId, blob: Digest) -> Result<bool, StoreError> {
    // The digest stands in the text wherever it is a layer; whether it is one, only the parsed
    // specification says, since tenants write some of the text.
    let rows = sqlx::query("SELECT id, spec FROM containers WHERE server_id = $1 AND spec LIKE $2")
        .bind(server.to_string())
        .bind(format!("%{blob}%"))
        .fetch_all(store.reader())
        .await?;
    for row in rows {
        let spec: ContainerSpec = serde_json::from_str(row.try_get("spec")?)
            .map_err(|error| StoreError::Corrupt { what: "containers.spec", source: Box::new(error) })?;
        if spec.image.layers.iter().any(|layer| layer.digest == blob) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The last report of a container.
pub async fn last(store: &Store, container: ContainerId) -> Result<Option<StatusReport>, StoreError> {
    let text: Option<Option<String>> = sqlx::query_scalar("SELECT report FROM containers WHERE id = $1")
        .bind(container.to_string())
        .fetch_optional(store.reader())
        .await?;
    text.flatten()
        .map(|text| {
            serde_json::from_str(&text)
                .map_err(|error| StoreError::Corrupt { what: "containers.report", source: Box::new(error) })
        })
        .transpose()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
