//! Restart: an operation, see [`super::operation`].

use super::{authorise, operate::check_restart, operation};
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        StoreError,
        container::{self, ContainerRow},
    },
};
use hoody_protocol::{id::ContainerId, operation::OperationKind};

/// Restarts the container's first process and waits for the outcome.
pub(super) async fn restart(app: &App, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    let mut tx = app.store.begin().await?;
    let mut row = container::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(&mut *tx, caller, &row, Level::Edit).await?;
    check_restart(&row)?;
    let begun = operation::begin(app, &mut tx, &mut row, Some(caller.user), OperationKind::Restart).await?;
    hoody_fault::point!("restart.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("restart.committed");
    operation::finish(app, &row, begun, "restarted").await?;
    container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))
}
