//! What is on its way from one server to another, for those who ask, and whether anything can be.

use crate::{
    app::App,
    error::ServiceError,
    nodes,
    store::{
        container::{ContainerRow, Status},
        node,
        transfer::{self, Moving},
    },
};
use hoody_protocol::id::ServerId;

/// A transfer that has not come to its end, and how far it is where this process passes it on.
#[derive(Debug, Clone)]
pub struct Transferred {
    /// The transfer.
    pub moving: Moving,
    /// `None`: it waits, or another process passes it on.
    pub progress: Option<nodes::Progress>,
}

/// What is on its way to the container; only looked for where something can be, or where `all` is wanted.
pub async fn transfer_of(app: &App, row: &ContainerRow, all: bool) -> Result<Option<Transferred>, ServiceError> {
    let being_made = matches!(row.status, Status::Copying | Status::Creating | Status::Failed);
    let may_be = all || (being_made && row.spec.transfer.is_some());
    if !may_be {
        return Ok(None);
    }
    let moving = transfer::moving(&app.store, row.spec.id).await?;
    Ok(moving.map(|moving| Transferred { progress: app.nodes.progress(moving.transfer.id), moving }))
}

/// 503 where the two servers are linked to different processes of the control plane, none of which can then connect
/// them. One that is offline may come to the same one as the other.
pub(super) async fn check_reachable(app: &App, one: ServerId, other: ServerId) -> Result<(), ServiceError> {
    if one == other {
        return Ok(());
    }
    let (one, other) = (node::by_id(&app.store, one).await?, node::by_id(&app.store, other).await?);
    let (Some(one), Some(other)) = (one, other) else { return Ok(()) };
    match (&one.linked_to, &other.linked_to) {
        (Some(a), Some(b)) if a != b => Err(ServiceError::Unavailable(format!(
            "servers {} and {} are connected to different replicas of the control plane, which cannot pass a file system \
             from one to the other: connect both to the same one, or try again when they are",
            one.name, other.name
        ))),
        _ => Ok(()),
    }
}
