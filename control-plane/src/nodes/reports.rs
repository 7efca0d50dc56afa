//! Batches of reports: stored in one transaction, then acknowledged, then announced. A batch whose
//! acknowledgement was lost comes again and changes nothing.

use super::{
    link::Link,
    pace::Pace,
    refusal::{MALFORMED_MESSAGE, unavailable},
};
use crate::{
    store::{
        StoreError, container, dispatch as work,
        report::{self, Applied},
        status_log,
    },
    timing::step,
};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, ServerId},
    link::{Report, ReportAck, ReportBatch, ReportEntry},
    time::now_ms,
};
use sqlx::AnyConnection;
use std::collections::BTreeSet;
use tokio::time::Instant;

/// Reports a second that one node may send in the long run.
const REPORTS_PER_SECOND: f64 = 200.0;
/// Reports that one node may send at once: what a long time offline leaves behind.
const BURST: f64 = 4096.0;

/// The pace of a link's reports.
pub(super) fn pace() -> Pace {
    Pace::new(BURST, REPORTS_PER_SECOND)
}

/// What a batch changed.
#[derive(Debug, Default)]
struct Outcome {
    changed: BTreeSet<ContainerId>,
    gone: BTreeSet<ContainerId>,
    foreign: usize,
    ahead: usize,
}

/// Stores a batch; the agent waits meanwhile, which is what bounds it. The cause of a refusal says
/// whether the agent should send it again.
pub(super) async fn ingest(link: &Link, batch: ReportBatch) -> Result<ReportAck, Cause> {
    let ascending = batch.entries.windows(2).all(|pair| pair[0].position < pair[1].position);
    let Some(last) = batch.entries.last().filter(|_| ascending).map(|entry| entry.position) else {
        return Err(Cause::new(MALFORMED_MESSAGE, "a batch has entries, in ascending order of position"));
    };
    let mut pace = link.reports.lock().await;
    let wait = pace.take(batch.entries.len(), Instant::now());
    if !wait.is_zero() {
        metrics::counter!("hoody_reports_delayed_total").increment(1);
        tokio::time::sleep(wait).await;
    }
    hoody_fault::point!("batch.received");
    let reports = batch.entries.len() as u64;
    let (store, server) = (&link.context.app.store, link.server());
    let write = store.write(move |connection| Box::pin(record(connection, server, batch)));
    let outcome = step("link: report written", write).await.map_err(|error| {
        tracing::error!(server = %link.server(), error = &error as &dyn std::error::Error, "store reports");
        unavailable()
    })?;
    hoody_fault::point!("batch.committed");
    drop(pace);
    metrics::counter!("hoody_reports_total").increment(reports);
    announce(link, &outcome);
    Ok(ReportAck { position: last })
}

fn announce(link: &Link, outcome: &Outcome) {
    let nodes = &link.context.app.nodes;
    for container in &outcome.gone {
        nodes.measurements.forget(*container);
        tracing::info!(server = %link.server(), %container, "the node confirmed the deletion");
    }
    for container in outcome.changed.union(&outcome.gone) {
        nodes.changes.announce(*container);
    }
    if outcome.foreign > 0 {
        metrics::counter!("hoody_reports_foreign_total").increment(outcome.foreign as u64);
        tracing::warn!(server = %link.server(), reports = outcome.foreign,
            "the node reported about containers that are not its own; ignored");
    }
    if outcome.ahead > 0 {
        tracing::error!(server = %link.server(), reports = outcome.ahead,
            "the node reported about specifications that were never sent; ignored");
    }
}

async fn record(connection: &mut AnyConnection, server: ServerId, batch: ReportBatch) -> Result<Outcome, StoreError> {
    let mut outcome = Outcome::default();
    let about = batch.entries.iter().map(|entry| entry.report.container());
    container::lock_all(connection, &about.collect()).await?;
    for entry in batch.entries.iter() {
        match apply(server, connection, entry, &mut outcome).await {
            Ok(()) => {}
            // One damaged row must not keep the reports of all others back for ever.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%server, position = entry.position,
                    error = &error as &dyn std::error::Error, "a report cannot be stored; passed over");
            }
            Err(error) => return Err(error),
        }
    }
    for container in &outcome.changed {
        status_log::prune(connection, *container).await?;
    }
    hoody_fault::point!("batch.stored");
    Ok(outcome)
}

async fn apply(
    server: ServerId,
    connection: &mut AnyConnection,
    entry: &ReportEntry,
    outcome: &mut Outcome,
) -> Result<(), StoreError> {
    let now = now_ms() as i64;
    match &entry.report {
        Report::Status(status) => match report::apply(connection, server, entry.position, status, now).await? {
            Applied::Stored => {
                outcome.changed.insert(status.container);
            }
            Applied::Gone => {
                container::purge(connection, status.container).await?;
                outcome.gone.insert(status.container);
            }
            Applied::Stale | Applied::Departed => {}
            Applied::Ahead => outcome.ahead += 1,
            Applied::Foreign => outcome.foreign += 1,
        },
        Report::Outcome(operation) => {
            if work::record_outcome(connection, server, operation, now).await? {
                outcome.changed.insert(operation.container);
            }
        }
    }
    Ok(())
}
