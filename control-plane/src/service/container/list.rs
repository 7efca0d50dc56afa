//! Lists: of containers, and of a container's status changes.

use super::authorise;
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        container::{self, ContainerRow, Filter, Slice},
        reservation,
        status_log::{self, StatusLogRow},
    },
};
use hoody_protocol::{
    id::{ContainerId, ProjectId, RealmId},
    time::now_ms,
};

/// Which containers are asked for.
#[derive(Debug, Clone, Default)]
pub struct ListInput {
    /// In this realm.
    pub realm: Option<RealmId>,
    /// Of this runtime.
    pub runtime: Option<String>,
    /// Also those that are being deleted.
    pub deleting: bool,
    /// Also those on servers whose rental has ended.
    pub expired: bool,
}

impl ListInput {
    fn filter(self, caller: &Caller) -> Filter {
        Filter {
            realms: self.realm.into_iter().chain(caller.realm).collect(),
            runtime: self.runtime,
            deleting: self.deleting,
            not_expired_at: (!self.expired).then(|| now_ms() as i64),
            ..Filter::default()
        }
    }
}

/// A page of the caller's containers, and how many there are.
pub async fn list(
    app: &App,
    caller: &Caller,
    input: ListInput,
    slice: Slice,
) -> Result<(Vec<ContainerRow>, u64), ServiceError> {
    let filter = Filter { owner: Some(caller.user), ..input.filter(caller) };
    Ok(container::list(&app.store, &filter, slice).await?)
}

/// A page of a project's containers, and how many there are.
pub async fn list_by_project(
    app: &App,
    caller: &Caller,
    project: ProjectId,
    input: ListInput,
    slice: Slice,
) -> Result<(Vec<ContainerRow>, u64), ServiceError> {
    let found = reservation::project(&app.store, project).await?;
    let mine = found.is_some_and(|found| {
        (caller.is_admin || found.owner == caller.user)
            && caller.realm.is_none_or(|realm| found.realm_ids.contains(&realm))
    });
    if !mine {
        return Err(ServiceError::NotFound("project"));
    }
    let filter = Filter { project: Some(project), ..input.filter(caller) };
    Ok(container::list(&app.store, &filter, slice).await?)
}

/// A page of a container's status changes, and how many there are.
pub async fn status_logs(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    slice: Slice,
) -> Result<(Vec<StatusLogRow>, u64), ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(caller, &row)?;
    Ok(status_log::list(&app.store, id, slice).await?)
}
