//! What is on its way from one server to another, for those who ask, and whether anything can be.

use crate::{
    app::App,
    error::ServiceError,
    store::{
        container::{ContainerRow, Status},
        node, replica,
        transfer::{self, Moving},
    },
};
use hoody_protocol::{id::ServerId, replica::Moved};

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
