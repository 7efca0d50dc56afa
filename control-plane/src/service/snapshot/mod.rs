//! Snapshots of containers: taken, restored and deleted by operations on the node ([`super::container::operation`]);
//! names, aliases and expiry are the control plane's alone.
//!
//! Every change holds the container's lock, so that limit, names and aliases are checked against what stays.

mod alias;
mod create;
mod delete;
mod input;
mod list;
mod restore;

pub use alias::rename;
pub use create::create;
pub use delete::{delete, expire};
pub use input::{AliasInput, SnapshotInput};
pub use list::{Listed, list};
pub use restore::restore;

use super::container::authorise;
use crate::{
    access::Level,
    caller::Caller,
    error::ServiceError,
    store::{
        container::{self, ContainerRow, Status},
        image_pull::PullState,
        snapshot::{SnapshotRow, SnapshotState},
    },
};
use hoody_protocol::{container::Desired, id::ContainerId};
use sqlx::AnyConnection;

/// The container, locked, where the caller may change it and its server has it.
async fn lock(connection: &mut AnyConnection, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    let row = container::lock(connection, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(&mut *connection, caller, &row, Level::Edit).await?;
    check_present(&row)?;
    Ok(row)
}

/// 409 where the container has no root file system, or not for much longer.
pub(in crate::service) fn check_present(row: &ContainerRow) -> Result<(), ServiceError> {
    if row.spec.desired == Desired::Deleted {
        return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
    }
    if row.pull.as_ref().is_some_and(|pull| pull.state == PullState::Failed) {
        let why = "the container's image could not be pulled: start it to try again";
        return Err(ServiceError::Conflict(why.to_owned()));
    }
    if row.pull.is_some() || matches!(row.status, Status::Creating | Status::Copying) {
        return Err(ServiceError::Conflict(format!("the container is {}: wait until it is made", row.status)));
    }
    Ok(())
}

/// The snapshot that a client calls so, by its name or its alias, where it is ready.
pub(in crate::service) fn ready(all: Vec<SnapshotRow>, called: &str) -> Result<SnapshotRow, ServiceError> {
    let is_called = |row: &&SnapshotRow| row.name == called || row.alias.as_deref() == Some(called);
    let found = all.iter().find(is_called).ok_or(ServiceError::NotFound("snapshot"))?;
    match found.state {
        SnapshotState::Ready => Ok(found.clone()),
        SnapshotState::Creating => {
            Err(ServiceError::Conflict("the snapshot is still being taken: wait until it is listed".to_owned()))
        }
        SnapshotState::Deleting => Err(ServiceError::Conflict("the snapshot is being deleted".to_owned())),
    }
}

/// 409 where another snapshot is called so already.
fn check_unused(others: &[SnapshotRow], called: Option<&str>, field: &str) -> Result<(), ServiceError> {
    let Some(called) = called else { return Ok(()) };
    let is_called = |row: &SnapshotRow| row.name == called || row.alias.as_deref() == Some(called);
    if others.iter().any(is_called) {
        return Err(ServiceError::Conflict(format!(
            "the container has another snapshot with this name or alias: choose another {field}"
        )));
    }
    Ok(())
}
