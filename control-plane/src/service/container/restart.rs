//! Restart: an operation, persisted before dispatch. It runs now or never: with the node offline it is
//! written down as expired, and when the deadline passes before it was sent it expires. Dispatch and
//! expiry are both conditional on `pending`, so only one of them wins; what was sent late, the node
//! refuses to begin.

use super::{authorise, change::write, operate::check_restart};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        StoreError,
        container::{self, ContainerRow},
        operation::{self, NewOperation, State},
    },
};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, OperationId},
    operation::OperationKind,
    time::now_ms,
};
use std::time::Duration;
use tokio::time::Instant;

/// How long after the deadline the outcome of what was sent is still waited for: the node may just be
/// refusing to begin.
const GRACE: Duration = Duration::from_secs(2);

/// Restarts the container's first process and waits for the outcome.
pub(super) async fn restart(app: &App, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    let deadline = Instant::now() + app.config.operation_deadline;
    let mut tx = app.store.begin().await?;
    let mut row = container::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(&mut *tx, caller, &row, Level::Edit).await?;
    check_restart(&row)?;
    let read = row.spec.version;
    let now = now_ms() as i64;
    row.sequence += 1;
    let offline = !row.server_info.online;
    let operation = NewOperation {
        id: OperationId::generate(),
        container: id,
        server: row.server,
        user: caller.user,
        sequence: row.sequence,
        kind: OperationKind::Restart,
        created_at: now,
        begin_before: now.saturating_add(i64::try_from(app.config.operation_deadline.as_millis()).unwrap_or(i64::MAX)),
        expired: offline.then(|| Cause::new("node_offline", "the server was offline")),
    };
    operation::insert(&mut tx, &operation).await?;
    write(&mut tx, &mut row, read).await?;
    hoody_fault::point!("restart.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("restart.committed");
    if offline {
        return Err(ServiceError::Unavailable(format!(
            "server {} is offline: nothing was restarted, and nothing will be; try again when it is back",
            row.server_info.name
        )));
    }
    app.nodes.wake(row.server);
    outcome(app, id, operation.id, deadline).await?;
    container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))
}

async fn outcome(
    app: &App,
    container: ContainerId,
    operation: OperationId,
    deadline: Instant,
) -> Result<(), ServiceError> {
    if let Some(ended) = ended_by(app, container, operation, deadline).await? {
        return result(ended);
    }
    let cause = Cause::new("timeout", "it was not sent to the server in time");
    let mut tx = app.store.begin().await?;
    let expired = operation::expire(&mut tx, operation, &cause, now_ms() as i64).await?;
    tx.commit().await.map_err(StoreError::from)?;
    if expired {
        return Err(ServiceError::NodeTimeout);
    }
    match ended_by(app, container, operation, deadline + GRACE).await? {
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
