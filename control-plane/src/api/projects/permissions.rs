//! `/projects/{id}/permissions`.

use crate::{
    access::Level,
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        json::Json,
        pagination::{self, Order, Page, Pagination, Sort},
        path::{Id, Ids},
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::project_permission as service,
    store::project_permission::{ProjectPermission, SORTABLE},
};
use axum::extract::State;
use hoody_protocol::id::{ProjectId, ProjectPermissionId, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectMemberData)]
struct MemberData {
    id: String,
    username: String,
    alias: String,
}

/// One user's permission in a project.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PermissionData {
    id: String,
    project_id: String,
    user_id: String,
    /// read, edit or delete; each includes those before it.
    permission_level: &'static str,
    user: MemberData,
    created_at: String,
    updated_at: String,
}

impl From<ProjectPermission> for PermissionData {
    fn from(permission: ProjectPermission) -> Self {
        let user_id = permission.user.to_string();
        Self {
            id: permission.id.to_string(),
            project_id: permission.project.to_string(),
            permission_level: permission.level.as_str(),
            user: MemberData { id: user_id.clone(), username: permission.username, alias: permission.user_alias },
            user_id,
            created_at: rfc3339(permission.created_at),
            updated_at: rfc3339(permission.updated_at),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PermissionList {
    permissions: Vec<PermissionData>,
    pagination: Pagination,
}

/// A permission as sent.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PermissionInput {
    #[schema(pattern = "^[0-9a-f]{24}$")]
    user_id: Option<String>,
    /// read, edit or delete.
    #[serde(alias = "level", alias = "permission")]
    permission_level: Option<String>,
}

fn level(input: &PermissionInput, problems: &mut BTreeMap<String, String>) -> Option<Level> {
    let problem = match input.permission_level.as_deref().map(str::parse) {
        Some(Ok(level)) => return Some(level),
        Some(Err(error)) => format!("{error}"),
        None => "is required: read, edit or delete".to_owned(),
    };
    problems.insert("permission_level".to_owned(), problem);
    None
}

fn user(input: &PermissionInput, problems: &mut BTreeMap<String, String>) -> Option<UserId> {
    let problem = match input.user_id.as_deref().map(str::parse::<UserId>) {
        Some(Ok(user)) => return Some(user),
        Some(Err(error)) => error.to_string(),
        None => "is required".to_owned(),
    };
    problems.insert("user_id".to_owned(), problem);
    None
}

/// List a project's permissions
#[utoipa::path(get, path = "/api/v1/projects/{id}/permissions", operation_id = "projects.listPermissions",
    tag = "projects", params(("id" = String, Path), Page,
        ("sort_by" = Option<String>, Query, description = "id, user_id, permission_level, created_at or updated_at"),
        ("sort_order" = Option<String>, Query, description = "asc or desc")),
    responses((status = 200, body = Success<PermissionList>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
    page: Result<Page, ServiceError>,
    sort: Sort,
) -> Result<Reply<PermissionList>, ServiceError> {
    let order = sort.among(SORTABLE, Order { by: "created_at", descending: true });
    let (page, order, ()) = pagination::together(page, order, Ok(()))?;
    let (permissions, total) = service::list(&app, &caller, id, page, order).await?;
    let pagination = page.of(total);
    let permissions = permissions.into_iter().map(PermissionData::from).collect();
    Ok(Reply::list(PermissionList { permissions, pagination }, pagination))
}

/// Give a user a permission in a project
#[utoipa::path(post, path = "/api/v1/projects/{id}/permissions", operation_id = "projects.addPermission",
    tag = "projects", params(("id" = String, Path)), request_body = PermissionInput,
    responses((status = 201, body = Success<PermissionData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 422, body = Failure)))]
pub(super) async fn add(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
    Json(input): Json<PermissionInput>,
) -> Result<Reply<PermissionData>, ServiceError> {
    let mut problems = BTreeMap::new();
    let (user, level) = (user(&input, &mut problems), level(&input, &mut problems));
    let (Some(user), Some(level)) = (user, level) else {
        return Err(ServiceError::Invalid(problems));
    };
    let permission = service::add(&app, &caller, id, user, level).await?;
    Ok(Reply::created(permission.into(), "permission given"))
}

/// Change a user's permission in a project
#[utoipa::path(put, path = "/api/v1/projects/{id}/permissions/{permissionId}",
    operation_id = "projects.updatePermission", tag = "projects",
    params(("id" = String, Path), ("permissionId" = String, Path)), request_body = PermissionInput,
    responses((status = 200, body = Success<PermissionData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Ids(project, id): Ids<ProjectId, ProjectPermissionId>,
    Json(input): Json<PermissionInput>,
) -> Result<Reply<PermissionData>, ServiceError> {
    let mut problems = BTreeMap::new();
    let level = level(&input, &mut problems).ok_or(ServiceError::Invalid(problems))?;
    let permission = service::update(&app, &caller, project, id, level).await?;
    Ok(Reply::ok(permission.into(), "permission updated"))
}

/// Change a user's permission in a project
#[utoipa::path(patch, path = "/api/v1/projects/{id}/permissions/{permissionId}",
    operation_id = "projects.patchPermission", tag = "projects",
    params(("id" = String, Path), ("permissionId" = String, Path)), request_body = PermissionInput,
    responses((status = 200, body = Success<PermissionData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn patch(
    app: State<App>,
    caller: Caller,
    ids: Ids<ProjectId, ProjectPermissionId>,
    input: Json<PermissionInput>,
) -> Result<Reply<PermissionData>, ServiceError> {
    update(app, caller, ids, input).await
}

/// Take a user's permission in a project away
#[utoipa::path(delete, path = "/api/v1/projects/{id}/permissions/{permissionId}",
    operation_id = "projects.removePermission", tag = "projects",
    params(("id" = String, Path), ("permissionId" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Ids(project, id): Ids<ProjectId, ProjectPermissionId>,
) -> Result<Reply<()>, ServiceError> {
    service::remove(&app, &caller, project, id).await?;
    Ok(Reply::ok((), "permission removed"))
}
