//! `/projects`.

mod permissions;
mod stats;

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::{Json, present},
    pagination::{self, MAX_LIMIT, Order, Page, Pagination, Sort},
    path::Id,
    query::{self, Query},
    time::rfc3339,
};
use crate::{
    app::App,
    error::ServiceError,
    service::{
        project::{self as service, Input},
        project_permission,
    },
    store::project::{Project, SORTABLE},
};
use axum::extract::State;
use hoody_protocol::id::{ProjectId, RealmId};
use permissions::PermissionData;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, patch, delete))
        .routes(routes!(permissions::list, permissions::add))
        .routes(routes!(permissions::update, permissions::patch, permissions::remove))
        .routes(routes!(stats::stats))
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProjectData {
    id: String,
    user_id: String,
    alias: String,
    color: String,
    max_containers: Option<i64>,
    realm_ids: Vec<String>,
    is_default: bool,
    created_at: String,
    updated_at: String,
    /// Only with `include_permissions`: the first hundred. The owner needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<PermissionData>>,
}

impl From<Project> for ProjectData {
    fn from(project: Project) -> Self {
        Self {
            id: project.id.to_string(),
            user_id: project.user.to_string(),
            alias: project.alias,
            color: project.color,
            max_containers: project.max_containers,
            realm_ids: project.realms.iter().map(RealmId::to_string).collect(),
            is_default: project.is_default,
            created_at: rfc3339(project.created_at),
            updated_at: rfc3339(project.updated_at),
            permissions: None,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct ProjectList {
    projects: Vec<ProjectData>,
    pagination: Pagination,
}

/// A project as sent. An update changes what is there and keeps the rest.
#[derive(Debug, Deserialize, ToSchema)]
struct ProjectInput {
    #[schema(min_length = 1, max_length = 128)]
    alias: Option<String>,
    /// `#RGB` or `#RRGGBB`; the `#` may be left out.
    #[schema(pattern = "^#?([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$")]
    color: Option<String>,
    /// The project's own limit of containers; null: the platform's.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    max_containers: Option<Option<i64>>,
    realm_ids: Option<Vec<String>>,
    quotas: Option<Quotas>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct Quotas {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    max_containers: Option<Option<i64>>,
}

impl From<ProjectInput> for Input {
    fn from(input: ProjectInput) -> Self {
        let quota = input.quotas.and_then(|quotas| quotas.max_containers);
        Self {
            alias: input.alias,
            color: input.color,
            max_containers: input.max_containers.or(quota),
            realms: input.realm_ids,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListFilter {
    /// Only projects of this realm.
    #[param(value_type = Option<String>)]
    realm_id: Option<RealmId>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct GetOptions {
    /// Adds `permissions`.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_permissions: bool,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeleteOptions {
    /// Adds `deleted_items`.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_deleted_items: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct DeletedCounts {
    aliases: u64,
    containers: u64,
    permissions: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct DeletedItem {
    id: String,
    name: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct DeletedItems {
    containers: Vec<DeletedItem>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Deletion {
    deleted: DeletedCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_items: Option<DeletedItems>,
}

/// List projects
#[utoipa::path(get, path = "/api/v1/projects", operation_id = "projects.list", tag = "projects",
    params(Page, ListFilter, ("sort_by" = Option<String>, Query, description = "id, alias, created_at or updated_at"),
        ("sort_order" = Option<String>, Query, description = "asc or desc")),
    responses((status = 200, body = Success<ProjectList>), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    page: Result<Page, ServiceError>,
    sort: Sort,
    filter: Result<Query<ListFilter>, ServiceError>,
) -> Result<Reply<ProjectList>, ServiceError> {
    let order = sort.among(SORTABLE, Order { by: "created_at", descending: true });
    let (page, order, Query(filter)) = pagination::together(page, order, filter)?;
    let (projects, total) = service::list(&app, &caller, filter.realm_id, page, order).await?;
    let pagination = page.of(total);
    let projects = projects.into_iter().map(ProjectData::from).collect();
    Ok(Reply::list(ProjectList { projects, pagination }, pagination))
}

/// Create a project
#[utoipa::path(post, path = "/api/v1/projects", operation_id = "projects.create", tag = "projects",
    request_body = ProjectInput,
    responses((status = 201, body = Success<ProjectData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 409, body = Failure), (status = 422, body = Failure)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(input): Json<ProjectInput>,
) -> Result<Reply<ProjectData>, ServiceError> {
    let project = service::create(&app, &caller, input.into()).await?;
    Ok(Reply::created(project.into(), "project created"))
}

/// Get a project
#[utoipa::path(get, path = "/api/v1/projects/{id}", operation_id = "projects.get", tag = "projects",
    params(("id" = String, Path), GetOptions),
    responses((status = 200, body = Success<ProjectData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
    Query(options): Query<GetOptions>,
) -> Result<Reply<ProjectData>, ServiceError> {
    let mut data = ProjectData::from(service::get(&app, &caller, id).await?);
    if options.include_permissions {
        let all = Page { page: 1, limit: MAX_LIMIT };
        let order = Order { by: "created_at", descending: false };
        let (permissions, _) = project_permission::list(&app, &caller, id, all, order).await?;
        data.permissions = Some(permissions.into_iter().map(PermissionData::from).collect());
    }
    Ok(Reply::ok(data, "here is the project"))
}

/// Change a project
#[utoipa::path(put, path = "/api/v1/projects/{id}", operation_id = "projects.update", tag = "projects",
    params(("id" = String, Path)), request_body = ProjectInput,
    responses((status = 200, body = Success<ProjectData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
    Json(input): Json<ProjectInput>,
) -> Result<Reply<ProjectData>, ServiceError> {
    let project = service::update(&app, &caller, id, input.into()).await?;
    Ok(Reply::ok(project.into(), "project updated"))
}

/// Change a project
#[utoipa::path(patch, path = "/api/v1/projects/{id}", operation_id = "projects.patch", tag = "projects",
    params(("id" = String, Path)), request_body = ProjectInput,
    responses((status = 200, body = Success<ProjectData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn patch(
    app: State<App>,
    caller: Caller,
    id: Id<ProjectId>,
    input: Json<ProjectInput>,
) -> Result<Reply<ProjectData>, ServiceError> {
    update(app, caller, id, input).await
}

/// Delete a project with its containers
#[utoipa::path(delete, path = "/api/v1/projects/{id}", operation_id = "projects.delete", tag = "projects",
    params(("id" = String, Path), DeleteOptions),
    responses((status = 200, body = Success<Deletion>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
    Query(options): Query<DeleteOptions>,
) -> Result<Reply<Deletion>, ServiceError> {
    let (containers, permissions) = service::delete(&app, &caller, id).await?;
    let deleted = DeletedCounts { aliases: 0, containers: containers.len() as u64, permissions };
    let items = containers.into_iter().map(|(id, name)| DeletedItem { id: id.to_string(), name });
    let deleted_items = options.include_deleted_items.then(|| DeletedItems { containers: items.collect() });
    Ok(Reply::ok(Deletion { deleted, deleted_items }, "project deleted"))
}
