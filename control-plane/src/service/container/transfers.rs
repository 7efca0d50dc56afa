//! What is on its way from one server to another, for those who ask, and whether anything more can be.

use crate::{
    app::App,
    error::ServiceError,
    store::{
        container::{ContainerRow, Status},
        node, replica,
        transfer::{self, Moving},
    },
};
use hoody_protocol::{
    id::{ServerId, TransferId},
    replica::Moved,
    transfer::MAX_KEPT,
};
use sqlx::AnyConnection;

/// A transfer that has not come to its end, and how far it is.
#[derive(Debug, Clone)]
pub struct Transferred {
    /// The transfer.
    pub moving: Moving,
    /// `None`: it waits, or whoever passes it on was not reached.
    pub progress: Option<Moved>,
}

/// What is on its way to the container; only looked for where something can be, or where `all` is wanted.
pub async fn transfer_of(app: &App, row: &ContainerRow, all: bool) -> Result<Option<Transferred>, ServiceError> {
    let being_made = matches!(row.status, Status::Copying | Status::Creating | Status::Failed);
    let may_be = all || (being_made && row.spec.transfer.is_some());
    if !may_be {
        return Ok(None);
    }
    let moving = transfer::moving(&app.store, row.spec.id).await?;
    let Some(moving) = moving else { return Ok(None) };
    let progress = app.nodes.progress(moving.transfer.target, moving.transfer.id).await;
    Ok(Some(Transferred { moving, progress }))
}

/// 503 where the two servers are linked to different processes of the control plane that do not reach each other. One
/// that is offline may come to the same one as the other.
pub(super) async fn check_reachable(app: &App, one: ServerId, other: ServerId) -> Result<(), ServiceError> {
    if one == other {
        return Ok(());
    }
    let (one, other) = (node::by_id(&app.store, one).await?, node::by_id(&app.store, other).await?);
    let (Some(one), Some(other)) = (one, other) else { return Ok(()) };
    match (&one.linked_to, &other.linked_to) {
        (Some(a), Some(b)) if a != b && !replica::reach_each_other(&app.store, a, b).await? => {
            Err(ServiceError::Unavailable(format!(
                "servers {} and {} are connected to different replicas of the control plane, which do not reach each other: \
             connect both servers to the same one, or give both replicas an address for each other",
                one.name, other.name
            )))
        }
        _ => Ok(()),
    }
}

/// 409 where the container, which is locked, has as many copies on other servers as its server keeps something for: with one
/// more, not all that stays could be named, and nothing could be let go of. A transfer that takes the place of `base` takes
/// none of its own.
pub(super) async fn check_room(
    connection: &mut AnyConnection,
    row: &ContainerRow,
    base: Option<TransferId>,
) -> Result<(), ServiceError> {
    let used = transfer::in_use(connection, row.spec.id, MAX_KEPT + 1).await?;
    if used.len() < MAX_KEPT || base.is_some_and(|base| used.contains(&base)) {
        return Ok(());
    }
    Err(ServiceError::Conflict(format!(
        "container {} has copies on other servers for which its server keeps {MAX_KEPT} states of its files, and it can keep \
         no more: delete a copy that is not needed first",
        row.name
    )))
}
