//! Lists: of containers, and of a container's status changes.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::project,
    store::{
        container::{self, ContainerRow, Filter, Slice},
        scope::Scope,
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
            realm: self.realm,
            scope: Scope::of(caller),
            runtime: self.runtime,
            deleting: self.deleting,
            not_expired_at: (!self.expired).then(|| now_ms() as i64),
            ..Filter::default()
        }
    }
}

/// A page of the containers that the caller owns or has a permission for, and how many there are.
pub async fn list(
    app: &App,
    caller: &Caller,
    input: ListInput,
    slice: Slice,
) -> Result<(Vec<ContainerRow>, u64), ServiceError> {
    let filter = Filter { visible_to: Some(caller.user), ..input.filter(caller) };
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
    project::get(app, caller, project).await?;
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
    super::get(app, caller, id).await?;
    Ok(status_log::list(&app.store, id, slice).await?)
}
