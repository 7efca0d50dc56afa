//! The one way in which a container's desired state changes: a locked row, a change, a new version, a
//! commit; then the node is woken and the request waits until it has answered, or the deadline has
//! passed. The work goes on then.

use super::{authorise, limits, moving, pull};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    event::{self, Actor},
    store::{
        self, StoreError,
        container::{self, ContainerRow},
        settings,
        status_log::Trigger,
    },
};
use hoody_protocol::{
    container::{ContainerSpec, Desired, State},
    id::ContainerId,
    tag::Message,
    time::now_ms,
    version::SpecVersion,
};
use sqlx::AnyConnection;
use tokio::time::Instant;

/// What a change did to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing; the row is as it was.
    Nothing,
    /// Only what the node need not know.
    Record,
    /// The specification: it gets a new version.
    Desired,
}

/// How far the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The node has done what was asked, or said why it cannot.
    Answered,
    /// The node is slow; the work goes on.
    Pending,
    /// The node is offline; it is done when it is back.
    Offline,
}

/// Changes the container by `edit` in one transaction and waits for the node.
pub async fn change<T>(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    edit: impl FnOnce(&mut ContainerRow) -> Result<(Effect, T), ServiceError>,
) -> Result<(ContainerRow, Progress, T), ServiceError> {
    let mut tx = app.store.begin().await?;
    let mut row = container::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(&mut *tx, caller, &row, Level::Edit).await?;
    moving::check_not_held(&row)?;
    let before = row.clone();
    let (effect, result) = edit(&mut row)?;
    match effect {
        Effect::Nothing => tx.rollback().await.map_err(StoreError::from)?,
        Effect::Record | Effect::Desired => {
            if effect == Effect::Desired {
                if row.spec.limits != before.spec.limits {
                    limits::reserve(&mut tx, &row, &before.spec.limits).await?;
                }
                renew(&mut tx, &mut row).await?;
            }
            if effect == Effect::Desired && matches!(row.spec.desired, Desired::Running { .. }) {
                pull::begin_again(&mut tx, &mut row, Trigger::User(caller.user)).await?;
            }
            write(&mut tx, &mut row, before.spec.version).await?;
            let events = event::container::changes(&before, &row, Actor::User(caller.user));
            store::event::insert_all(&mut tx, &events).await?;
            hoody_fault::point!("change.writing");
            tx.commit().await.map_err(StoreError::from)?;
            hoody_fault::point!("change.committed");
        }
    }
    match effect {
        Effect::Record => Ok((row, Progress::Answered, result)),
        Effect::Nothing | Effect::Desired => {
            app.nodes.wake(row.server);
            app.pulls.wake();
            let (row, progress) = settle(app, row).await?;
            Ok((row, progress, result))
        }
    }
}

/// Writes a row that was read at version `read`.
pub(in crate::service) async fn write(
    connection: &mut AnyConnection,
    row: &mut ContainerRow,
    read: SpecVersion,
) -> Result<(), ServiceError> {
    row.updated_at = now_ms() as i64;
    if container::update(connection, row, read).await? {
        return Ok(());
    }
    Err(ServiceError::Conflict("the container was changed meanwhile: try again".to_owned()))
}

/// Gives the changed specification the next version and place in the container's order.
pub(in crate::service) async fn renew(
    connection: &mut AnyConnection,
    row: &mut ContainerRow,
) -> Result<(), ServiceError> {
    renew_any(connection, row).await?;
    check_size(&row.spec)
}

/// As [`renew`], of a specification that was accepted before in about this size: it must not be refused now.
pub(in crate::service) async fn renew_any(
    connection: &mut AnyConnection,
    row: &mut ContainerRow,
) -> Result<(), StoreError> {
    let epoch = settings::epoch(connection).await?.max(row.spec.version.epoch);
    row.spec.version = SpecVersion { epoch, generation: row.spec.version.generation + 1 };
    row.sequence += 1;
    row.spec.sequence = row.sequence;
    Ok(())
}

/// A specification must fit into one message to the node. Each part is bounded where it comes in; this is
/// for their sum.
pub(super) fn check_size(spec: &ContainerSpec) -> Result<(), ServiceError> {
    // JSON is longer than the CBOR of the message, but for the heads of a few long collections.
    const SLACK: usize = 4 << 10;
    let bytes = serde_json::to_vec(spec).map_err(ServiceError::internal)?.len() + SLACK;
    if bytes <= ContainerSpec::MAX_BYTES {
        return Ok(());
    }
    Err(ServiceError::Unprocessable {
        message: "the container's environment, firewall and image together are too large: shorten the environment"
            .to_owned(),
        details: [("size".to_owned(), format!("{bytes} of {} bytes", ContainerSpec::MAX_BYTES))].into(),
    })
}

/// True where the node has answered the version or a newer one: done, or failed with a cause.
fn answered(row: &ContainerRow, version: SpecVersion) -> bool {
    row.report.as_ref().is_some_and(|report| {
        report.version >= version
            && (report.converged || report.state == State::Failed || report.firewall_error.is_some())
    })
}

/// Waits until the node has answered the row's version, at most until the configured deadline, and gives
/// the row as it is then. A row that is gone meanwhile is 404.
pub async fn settle(app: &App, row: ContainerRow) -> Result<(ContainerRow, Progress), ServiceError> {
    let (id, version) = (row.spec.id, row.spec.version);
    if row.pull.is_some() {
        // Nothing is sent before its image is there, which may take long.
        return Ok((row, Progress::Pending));
    }
    if answered(&row, version) {
        return Ok((row, Progress::Answered));
    }
    if !row.server_info.online {
        return Ok((row, Progress::Offline));
    }
    let deadline = Instant::now() + app.config.desired_state_deadline;
    let found = app
        .nodes
        .changes
        .wait_for(id, deadline, || async {
            let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
            Ok::<_, ServiceError>(answered(&row, version).then_some(row))
        })
        .await?;
    match found {
        Some(row) => Ok((row, Progress::Answered)),
        None => {
            let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
            let progress = if row.server_info.online { Progress::Pending } else { Progress::Offline };
            Ok((row, progress))
        }
    }
}
