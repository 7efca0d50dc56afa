//! Containers: who may touch them, what a change is, and how long a request waits for the node.

pub mod archive;
mod authorize;
mod change;
mod copy;
mod create;
mod creation;
mod delete;
mod fields;
mod image;
mod inspect;
mod kvm;
mod limits;
mod list;
pub mod moving;
mod operate;
pub(in crate::service) mod operation;
pub(crate) mod overdue_syncs;
pub mod pull;
mod ramdisk;
mod restart;
mod ssh_key;
pub(crate) mod sync;
mod transfers;
mod update;

pub use authorize::{Authorization, ContainerClaimInput, authorize};
pub use change::{Effect, Progress, change, settle};
pub(in crate::service) use change::{renew, write};
pub use copy::{Copied, CopyInput, copy};
pub use create::create;
pub use creation::{CreateInput, RegistryCredentials};
pub use delete::{Deletion, delete};
pub use inspect::{Unseen, inspect, inspect_all};
pub use kvm::{KvmInput, set_kvm};
pub use limits::SpecsInput;
pub use list::{ListInput, list, list_by_project, status_logs};
pub use moving::MoveInput;
pub use operate::{Operation, UnknownOperation, operate};
pub use pull::Pulls;
pub use sync::{IfDiverged, sync};
pub use transfers::{Transferred, transfer_of};
pub use update::{UpdateInput, update};

pub(in crate::service) use fields::{
    MAX_ENV_VALUE_CHARS, MIN_NEW_NAME_CHARS, check_env_key, check_env_size, check_env_value, check_name, env_text,
};

use crate::{
    access::{
        Level,
        object::{self, InProject},
    },
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        Queries,
        container::{self, ContainerRow},
    },
};
use hoody_protocol::id::ContainerId;

/// The container, if the caller may see it. What they may not see does not exist for them.
pub async fn get(app: &App, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, Level::Read).await?;
    Ok(row)
}

/// True where there is no such container any more. What was in it has ended and says so by itself: whoever is connected to it
/// has lost no right.
pub async fn is_gone(app: &App, id: ContainerId) -> bool {
    matches!(container::get(&app.store, id).await, Ok(None))
}

/// Ok where the caller may go as far as `needed` with the container: see [`object::in_project`].
pub(in crate::service) async fn authorise<'e>(
    queries: impl Queries<'e>,
    caller: &Caller,
    row: &ContainerRow,
    needed: Level,
) -> Result<(), ServiceError> {
    let (project, owner) = (row.spec.project, row.spec.owner);
    let object = InProject { what: "container", project, owner, realms: &row.realm_ids, for_operators: true };
    object::in_project(queries, caller, object, needed).await
}
