//! What a container wrote, from its node.

use super::exec::{Conversation, Kind, broken, check_reachable, find, not_opened};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    nodes::remote::{RemoteError, RemoteLog},
    store::container::ContainerRow,
};
use hoody_protocol::{
    id::{ContainerId, UserId},
    logs::{LogBatch, LogPosition, LogRecord, LogRequest},
};
use std::time::Duration;
use tokio::time::timeout;

/// Records of the end of the log that can be asked for.
pub const MAX_TAIL: u32 = 10_000;
/// Bytes of text of one answer.
const ANSWER_BYTES: usize = 1 << 20;
/// Bytes of text that are on their way at once.
const BATCH_BYTES: u32 = 64 << 10;
/// The time the node has to read what there is.
const NODE_DEADLINE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogInput {
    /// Only so many of the last ones.
    pub tail: Option<u32>,
    /// None before this, milliseconds since the Unix epoch.
    pub since: Option<i64>,
    /// None after this, milliseconds since the Unix epoch.
    pub until: Option<i64>,
    /// Standard output only (false) or standard error only (true).
    pub error: Option<bool>,
    /// Only those behind this place.
    pub after: Option<LogPosition>,
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    /// In the order in which they were written.
    pub records: Vec<LogRecord>,
    /// There is more behind them.
    pub truncated: bool,
    /// Records between the place asked for and the first of these are no longer kept.
    pub lost: bool,
}

/// A log that is followed.
#[derive(Debug)]
pub struct Follower {
    row: ContainerRow,
    log: RemoteLog,
}

/// What there is.
pub async fn read(app: &App, caller: &Caller, id: ContainerId, input: LogInput) -> Result<LogPage, ServiceError> {
    let (mut follower, _place) = open(app, caller, id, input, false).await?;
    let mut page = LogPage::default();
    let mut bytes = 0;
    let reading = async {
        loop {
            let batch = follower.next().await?;
            page.lost |= batch.lost;
            bytes += batch.records.iter().map(|record| record.text.len()).sum::<usize>();
            page.records.extend(batch.records.into_inner());
            page.truncated = !batch.end;
            if batch.end || bytes >= ANSWER_BYTES || page.records.len() >= MAX_TAIL as usize {
                return Ok::<(), ServiceError>(());
            }
        }
    };
    timeout(NODE_DEADLINE, reading).await.map_err(|_elapsed| ServiceError::NodeTimeout)??;
    Ok(page)
}

/// What there is and what comes, and the caller's place.
pub async fn follow(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: LogInput,
) -> Result<(Follower, Conversation), ServiceError> {
    open(app, caller, id, input, true).await
}

/// The container's owner, where the caller may still read its log.
pub async fn still_may(app: &App, caller: &Caller, id: ContainerId) -> Result<UserId, ServiceError> {
    find(app, caller, id, Level::Read).await.map(|row| row.spec.owner)
}

async fn open(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: LogInput,
    follow: bool,
) -> Result<(Follower, Conversation), ServiceError> {
    let row = find(app, caller, id, Level::Read).await?;
    check_reachable(app, &row).await?;
    let place = app.conversations.begin(caller.user, Kind::Log)?;
    let nanoseconds = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
    let request = LogRequest {
        container: id,
        tail: input.tail,
        since: input.since.map(nanoseconds),
        until: input.until.map(nanoseconds),
        output: input.error != Some(true),
        error: input.error != Some(false),
        after: input.after,
        follow,
    };
    let stream = app.nodes.open(row.server, &request).await.map_err(|error| not_opened(&row, error))?;
    Ok((Follower { row, log: stream.into_log() }, place))
}

impl Follower {
    /// The next records. Dropped while it waits, it cannot go on.
    pub async fn next(&mut self) -> Result<LogBatch, ServiceError> {
        self.log.next(BATCH_BYTES).await.map_err(|error: RemoteError| broken(&self.row, error))
    }
}
