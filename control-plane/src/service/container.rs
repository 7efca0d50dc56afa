//! Containers: who may touch them, what a change is, and how long a request waits for the node.

mod change;
mod create;
mod creation;
mod delete;
mod fields;
mod image;
mod limits;
mod list;
mod operate;
mod restart;
mod update;

pub use change::{Effect, Progress, change, settle};
pub use create::create;
pub use creation::CreateInput;
pub use delete::{Deletion, delete};
pub use limits::SpecsInput;
pub use list::{ListInput, list, list_by_project, status_logs};
pub use operate::{Operation, UnknownOperation, operate};
pub use update::{UpdateInput, update};

pub(in crate::service) use fields::{MAX_ENV_VALUE_CHARS, check_env_key, check_env_size, check_env_value, env_text};

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    store::container::{self, ContainerRow},
};
use hoody_protocol::id::ContainerId;

/// The container, if it is the caller's. What is not the caller's does not exist for them.
pub async fn get(app: &App, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(caller, &row)?;
    Ok(row)
}

/// 404 where the container is not the caller's: its owner's, or any for an operator; in a realm's scope
/// only what belongs to the realm.
fn authorise(caller: &Caller, row: &ContainerRow) -> Result<(), ServiceError> {
    let allowed = caller.is_admin || row.spec.owner == caller.user;
    let in_scope = caller.realm.is_none_or(|realm| row.realm_ids.contains(&realm));
    if allowed && in_scope { Ok(()) } else { Err(ServiceError::NotFound("container")) }
}
