//! Permissions of users in projects of others. The owner gives, changes and takes them; a member can leave.

use crate::{
    access::{Level, object},
    app::App,
    caller::Caller,
    error::ServiceError,
    page::{Order, Page},
    service::project,
    store::{
        StoreError,
        project::{self as projects, Project},
        project_permission::{self as store, ProjectPermission},
    },
};
use hoody_protocol::id::{ProjectId, ProjectPermissionId, UserId};
use sqlx::AnyConnection;
use std::collections::BTreeMap;

/// Permissions of one project.
const MAX_PERMISSIONS: i64 = 100;
const PERMISSION: &str = "permission";
const PROJECT: &str = "project";

/// One page of a project's permissions, and how many there are; for everybody who sees the project.
pub async fn list(
    app: &App,
    caller: &Caller,
    project: ProjectId,
    page: Page,
    order: Order,
) -> Result<(Vec<ProjectPermission>, u64), ServiceError> {
    project::get(app, caller, project).await?;
    Ok(store::list(&app.store, project, page, order).await?)
}

/// Gives a user a permission in the caller's project.
pub async fn add(
    app: &App,
    caller: &Caller,
    project: ProjectId,
    user: UserId,
    level: Level,
) -> Result<ProjectPermission, ServiceError> {
    let mut tx = app.store.begin().await?;
    let owned = lock_own(&mut tx, caller, project).await?;
    if user == owned.user {
        return Err(ServiceError::Conflict("the owner of a project may do everything in it already".to_owned()));
    }
    let inserted =
        store::insert(&mut tx, project, user, level, MAX_PERMISSIONS).await.map_err(|error| match error {
            StoreError::MissingReference => ServiceError::NotFound("user"),
            other => other.into(),
        })?;
    let Some(id) = inserted else {
        let message = format!("the project has {MAX_PERMISSIONS} permissions, the most there can be: remove one first");
        let details = BTreeMap::from([("permissions".to_owned(), format!("limit {MAX_PERMISSIONS}"))]);
        return Err(ServiceError::Unprocessable { message, details });
    };
    let permission = find(&mut tx, project, id).await?;
    tell(&mut tx, caller, &owned, "added", &permission).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(permission)
}

/// Changes how far a permission goes.
pub async fn update(
    app: &App,
    caller: &Caller,
    project: ProjectId,
    id: ProjectPermissionId,
    level: Level,
) -> Result<ProjectPermission, ServiceError> {
    let mut tx = app.store.begin().await?;
    let owned = lock_own(&mut tx, caller, project).await?;
    find(&mut tx, project, id).await?;
    store::update(&mut tx, id, level).await?;
    let permission = find(&mut tx, project, id).await?;
    tell(&mut tx, caller, &owned, "updated", &permission).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(permission)
}

/// Takes a permission away: the owner's right, and that of the one who has it.
pub async fn remove(
    app: &App,
    caller: &Caller,
    project: ProjectId,
    id: ProjectPermissionId,
) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let found = lock(&mut tx, caller, project).await?;
    let permission = find(&mut tx, project, id).await?;
    if permission.user != caller.user {
        object::own_project(&mut *tx, caller, project::object(&found)).await?;
    }
    store::delete(&mut tx, id).await?;
    tell(&mut tx, caller, &found, "removed", &permission).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

async fn lock(connection: &mut AnyConnection, caller: &Caller, id: ProjectId) -> Result<Project, ServiceError> {
    let project = projects::lock(connection, id).await?.ok_or(ServiceError::NotFound(PROJECT))?;
    object::in_project(connection, caller, project::object(&project), Level::Read).await?;
    Ok(project)
}

async fn lock_own(connection: &mut AnyConnection, caller: &Caller, id: ProjectId) -> Result<Project, ServiceError> {
    let project = lock(connection, caller, id).await?;
    object::own_project(connection, caller, project::object(&project)).await?;
    Ok(project)
}

async fn find(
    connection: &mut AnyConnection,
    project: ProjectId,
    id: ProjectPermissionId,
) -> Result<ProjectPermission, ServiceError> {
    store::get(connection, project, id).await?.ok_or(ServiceError::NotFound(PERMISSION))
}

/// The contract has no event of its own for this: it is a change of the project.
async fn tell(
    connection: &mut AnyConnection,
    caller: &Caller,
    project: &Project,
    what: &str,
    permission: &ProjectPermission,
) -> Result<(), ServiceError> {
    let change = serde_json::json!({
        "change": what,
        "user_id": permission.user.to_string(),
        "permission_level": permission.level.as_str(),
    });
    projects::tell_updated(connection, project, caller.user, "permission", change).await?;
    Ok(())
}
