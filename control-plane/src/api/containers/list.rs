//! Lists of containers.

use super::{runtime_info, view::ContainerData};
use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        pagination::{self, Order, Page, Pagination, Sort},
        path::Id,
        query::{self, Query},
    },
    app::App,
    error::ServiceError,
    service::container::{self as service, ListInput},
    store::container::{ContainerRow, Slice},
};
use axum::extract::State;
use hoody_protocol::id::{ProjectId, RealmId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What lists can be sorted by.
const SORTABLE: &[&str] = &["id", "name", "status", "created_at", "updated_at"];
const NEWEST_FIRST: Order = Order { by: "created_at", descending: true };

/// Which containers, and what about them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only containers of this realm.
    #[param(value_type = Option<String>)]
    realm_id: Option<RealmId>,
    /// Only containers of this runtime: lxc or docker. Or true: also what runs inside each of the page.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    runtime: Option<Runtime>,
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

/// What `runtime` says: a kind of containers, or whether to look inside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Runtime {
    Lxc,
    Docker,
    Inside(bool),
}

impl TryFrom<String> for Runtime {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match text.as_str() {
            "lxc" => Ok(Self::Lxc),
            "docker" => Ok(Self::Docker),
            "true" | "1" => Ok(Self::Inside(true)),
            "false" | "0" => Ok(Self::Inside(false)),
            _ => Err("must be lxc or docker, or true or false"),
        }
    }
}

impl ListQuery {
    fn inside(&self) -> bool {
        self.runtime == Some(Runtime::Inside(true))
    }

    fn input(&self) -> ListInput {
        let runtime = match self.runtime {
            Some(Runtime::Lxc) => Some("lxc".to_owned()),
            Some(Runtime::Docker) => Some("docker".to_owned()),
            Some(Runtime::Inside(_)) | None => None,
        };
        ListInput { realm: self.realm_id, runtime, deleting: self.include_deleting, expired: self.include_expired }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContainerList {
    containers: Vec<ContainerData>,
    pagination: Pagination,
}

/// A page in this order.
pub(super) fn slice(page: Page, order: Order) -> Slice {
    Slice { by: order.by, descending: order.descending, limit: page.limit, offset: page.offset() }
}

/// What a request asks for, or every bad field of it.
fn asked(
    page: Result<Page, ServiceError>,
    sort: &Sort,
    query: Result<Query<ListQuery>, ServiceError>,
) -> Result<(Page, Slice, ListInput, ListQuery), ServiceError> {
    let (page, order, Query(query)) = pagination::together(page, sort.among(SORTABLE, NEWEST_FIRST), query)?;
    Ok((page, slice(page, order), query.input(), query))
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
    page: Result<Page, ServiceError>,
    sort: Sort,
    query: Result<Query<ListQuery>, ServiceError>,
) -> Result<Reply<ContainerList>, ServiceError> {
    let (page, slice, input, query) = asked(page, &sort, query)?;
    let found = service::list(&app, &caller, input, slice).await?;
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
    page: Result<Page, ServiceError>,
    sort: Sort,
    query: Result<Query<ListQuery>, ServiceError>,
) -> Result<Reply<ContainerList>, ServiceError> {
    let (page, slice, input, query) = asked(page, &sort, query)?;
    let found = service::list_by_project(&app, &caller, id, input, slice).await?;
    Ok(reply(&app, page, &query, found).await)
}
