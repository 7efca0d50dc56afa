//! Reading and deleting a container.

use super::{runtime_info, view::ContainerData, written};
use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        path::Id,
        query::{self, Query},
    },
    app::App,
    error::ServiceError,
    service::container::{self as service, Deletion},
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// Also what runs inside: processes, sockets that listen, services.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    runtime: bool,
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_proxy_domains: bool,
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_proxy_permissions: bool,
}

/// Get a container
#[utoipa::path(get, path = "/api/v1/containers/{id}", operation_id = "containers.get", tag = "containers",
    params(("id" = String, Path), GetQuery),
    responses((status = 200, body = Success<ContainerData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
pub(super) async fn get(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Query(query): Query<GetQuery>,
) -> Result<Reply<ContainerData>, ServiceError> {
    let row = service::get(&app, &caller, id).await?;
    let transfer = service::transfer_of(&app, &row, query.runtime).await?;
    let seen = if query.runtime { Some(runtime_info::of(service::inspect(&app, &row).await)) } else { None };
    let mut data = ContainerData::from(row).with_proxy(query.include_proxy_domains, query.include_proxy_permissions);
    if let Some(seen) = seen {
        data = data.with_runtime_info(seen);
    }
    if let Some(transfer) = transfer {
        data = data.with_transfer(transfer.into());
    }
    Ok(Reply::ok(data, "here is the container"))
}

/// Delete a container
#[utoipa::path(delete, path = "/api/v1/containers/{id}", operation_id = "containers.delete", tag = "containers",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<()>, ServiceError> {
    Ok(Reply::ok(
        (),
        match service::delete(&app, &caller, id).await? {
            Deletion::Done => "container deleted".to_owned(),
            Deletion::Pending(progress) => {
                written(progress, "accepted; the server could not finish yet and tries again")
            }
        },
    ))
}
