//! Lists of containers.

use super::{runtime_info, view::ContainerData};
use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        pagination::{Order, Page, Pagination, Sort},
        path::Id,
        query::{self, Query},
    },
    app::App,
    error::ServiceError,
    service::container::{self as service, ListInput},
    store::container::{ContainerRow, Slice},
};
use axum::extract::State;
use hoody_protocol::id::{InvalidId, ProjectId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What lists can be sorted by.
const SORTABLE: &[&str] = &["id", "name", "status", "created_at", "updated_at"];

/// Which containers, and what about them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only containers of this realm.
    realm_id: Option<String>,
    /// Only containers of this runtime: lxc or docker. Or true: also what runs inside each of the page.
    runtime: Option<String>,
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_proxy_domains: bool,
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_proxy_permissions: bool,
    /// Checked only: lists always show prespawned containers too.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    #[expect(dead_code, reason = "a value that is no flag is refused, either flag means the same")]
    include_prespawn: bool,
    /// Also containers on servers whose rental has ended.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_expired: bool,
    /// Also containers that are being deleted.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_deleting: bool,
}

impl ListQuery {
    /// Whether `runtime` asks for what runs inside, and not for a kind of containers.
    fn inside(&self) -> bool {
        matches!(self.runtime.as_deref(), Some("true" | "1"))
    }

    fn input(&self) -> Result<ListInput, ServiceError> {
        let realm = self.realm_id.as_deref().map(str::parse).transpose();
        let realm = realm.map_err(|error: InvalidId| ServiceError::invalid("realm_id", error.to_string()))?;
        let runtime = match self.runtime.as_deref() {
            None | Some("true" | "1" | "false" | "0") => None,
            Some(runtime @ ("lxc" | "docker")) => Some(runtime.to_owned()),
            Some(_) => return Err(ServiceError::invalid("runtime", "must be lxc or docker, or true or false")),
        };
        Ok(ListInput { realm, runtime, deleting: self.include_deleting, expired: self.include_expired })
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContainerList {
    containers: Vec<ContainerData>,
    pagination: Pagination,
}

/// A page in an order out of `allowed`.
pub(super) fn slice(
    page: Page,
    sort: &Sort,
    allowed: &[&'static str],
    default: &'static str,
) -> Result<Slice, ServiceError> {
    let order = sort.among(allowed, Order { by: default, descending: true })?;
    Ok(Slice { by: order.by, descending: order.descending, limit: page.limit, offset: page.offset() })
}

async fn reply(
    app: &App,
    page: Page,
    query: &ListQuery,
    (rows, total): (Vec<ContainerRow>, u64),
) -> Reply<ContainerList> {
    let pagination = page.of(total);
    let (domains, permissions) = (query.include_proxy_domains, query.include_proxy_permissions);
    let seen = if query.inside() { service::inspect_all(app, &rows).await } else { Vec::new() };
    let mut seen = seen.into_iter();
    let view = |row| {
        let data = ContainerData::from(row).with_proxy(domains, permissions);
        match seen.next() {
            Some(seen) => data.with_runtime_info(runtime_info::of(seen)),
            None => data,
        }
    };
    Reply::list(ContainerList { containers: rows.into_iter().map(view).collect(), pagination }, pagination)
}

/// List containers
#[utoipa::path(get, path = "/api/v1/containers", operation_id = "containers.list", tag = "containers",
    params(Page, ListQuery, ("sort_by" = Option<String>, Query, description = "id, name, status, created_at or updated_at"),
        ("sort_order" = Option<String>, Query, description = "asc or desc")),
    responses((status = 200, body = Success<ContainerList>), (status = 400, body = Failure), (status = 401, body = Failure)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    page: Page,
    sort: Sort,
    Query(query): Query<ListQuery>,
) -> Result<Reply<ContainerList>, ServiceError> {
    let slice = slice(page, &sort, SORTABLE, "created_at")?;
    let found = service::list(&app, &caller, query.input()?, slice).await?;
    Ok(reply(&app, page, &query, found).await)
}

/// List the containers of a project
#[utoipa::path(get, path = "/api/v1/projects/{id}/containers", operation_id = "containers.listByProject", tag = "containers",
    params(("id" = String, Path), Page, ListQuery,
        ("sort_by" = Option<String>, Query, description = "id, name, status, created_at or updated_at"),
        ("sort_order" = Option<String>, Query, description = "asc or desc")),
    responses((status = 200, body = Success<ContainerList>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
pub(super) async fn list_by_project(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ProjectId>,
    page: Page,
    sort: Sort,
    Query(query): Query<ListQuery>,
) -> Result<Reply<ContainerList>, ServiceError> {
    let slice = slice(page, &sort, SORTABLE, "created_at")?;
    let found = service::list_by_project(&app, &caller, id, query.input()?, slice).await?;
    Ok(reply(&app, page, &query, found).await)
}
