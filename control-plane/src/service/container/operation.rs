//! Operations: written down before they are sent, and waited for. They run now or never: with the node offline one is
//! written down as expired, and when the deadline passes before it was sent it expires. Dispatch and expiry are
//! both conditional on `pending`, so only one of them wins; what was sent late, the node refuses to begin.

use super::{change::write, moving};
use crate::{
    app::App,
    error::ServiceError,
    store::{
        StoreError,
        container::ContainerRow,
        operation::{self, NewOperation, State},
    },
};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, OperationId, UserId},
    operation::OperationKind,
    time::now_ms,
};
use sqlx::AnyConnection;
use std::time::Duration;
use tokio::time::Instant;

/// How long after the deadline the outcome of what was sent is still waited for: the node may just be
/// refusing to begin.
const GRACE: Duration = Duration::from_secs(2);

/// An operation that is written down, before the commit.
#[derive(Debug)]
pub(in crate::service) struct Begun {
    id: OperationId,
    container: ContainerId,
    deadline: Instant,
    /// The node is offline: the operation has expired already.
    pub(in crate::service) offline: bool,
}

impl Begun {
    /// Which operation.
    pub(in crate::service) fn id(&self) -> OperationId {
        self.id
    }
}

/// Writes an operation on a locked container down; `user` asks for it, or housekeeping does.
pub(in crate::service) async fn begin(
    app: &App,
    connection: &mut AnyConnection,
    row: &mut ContainerRow,
    user: Option<UserId>,
    kind: OperationKind,
) -> Result<Begun, ServiceError> {
    moving::check_not_held(row)?;
    let limit = app.config.operation_deadline;
    let (deadline, now) = (Instant::now() + limit, now_ms() as i64);
    let read = row.spec.version;
    row.sequence += 1;
    let offline = !row.server_info.online;
    let operation = NewOperation {
        id: OperationId::generate(),
        container: row.spec.id,
        server: row.server,
        user,
        sequence: row.sequence,
        kind,
        created_at: now,
        begin_before: now.saturating_add(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)),
        expired: offline.then(|| Cause::new("node_offline", "the server was offline")),
    };
    operation::insert(connection, &operation).await?;
    write(connection, row, read).await?;
    Ok(Begun { id: operation.id, container: row.spec.id, deadline, offline })
}

/// Has what was written down and committed sent, and waits for its outcome; `undone` says what did not take place
/// where the node is offline.
pub(in crate::service) async fn finish(
    app: &App,
    row: &ContainerRow,
    begun: Begun,
    undone: &str,
) -> Result<(), ServiceError> {
    if begun.offline {
        return Err(ServiceError::Unavailable(format!(
            "server {} is offline: nothing was {undone}, and nothing will be; try again when it is back",
            row.server_info.name
        )));
    }
    app.nodes.wake(row.server);
    let Begun { id, container, deadline, .. } = begun;
    if let Some(ended) = ended_by(app, container, id, deadline).await? {
        return result(ended);
    }
    let cause = Cause::new("timeout", "it was not sent to the server in time");
    let mut tx = app.store.begin().await?;
    let expired = operation::expire(&mut tx, id, &cause, now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    if expired {
        return Err(ServiceError::NodeTimeout);
    }
    match ended_by(app, container, id, deadline + GRACE).await? {
        Some(ended) => result(ended),
        None => Err(ServiceError::NodeTimeout),
    }
}

/// How the operation ended; `None` where it has not by the deadline.
async fn ended_by(
    app: &App,
    container: ContainerId,
    operation: OperationId,
    deadline: Instant,
) -> Result<Option<State>, ServiceError> {
    app.nodes
        .changes
        .wait_for(container, deadline, || async {
            let state = operation::state(&app.store, operation).await?.ok_or(ServiceError::NotFound("container"))?;
            Ok(match state {
                State::Pending | State::Dispatched => None,
                ended => Some(ended),
            })
        })
        .await
}

fn result(ended: State) -> Result<(), ServiceError> {
    match ended {
        State::Succeeded => Ok(()),
        State::Failed(cause) => Err(ServiceError::NodeFailed(cause)),
        State::Pending | State::Dispatched | State::Expired(_) => Err(ServiceError::NodeTimeout),
    }
}
