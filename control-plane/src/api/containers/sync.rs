//! Syncing a copy with what it was copied from.

use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        path::Id,
        query::Query,
    },
    app::App,
    error::ServiceError,
    service::container::{self as service, IfDiverged},
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SyncQuery {
    /// What becomes of changes that the copy has of its own: `keep`, as is the default, keeps them as a snapshot;
    /// `refuse` answers 409 where there are any, or that is not known.
    #[serde(default)]
    #[param(inline, required = false)]
    if_diverged: IfDiverged,
}

/// A sync that has begun.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SyncData {
    /// The copy.
    container_id: String,
    /// What it was copied from.
    source_container_id: String,
    /// `syncing`: the events and the status log of the copy say how it ends.
    status: &'static str,
}

/// Sync a copied container with what it was copied from
#[utoipa::path(post, path = "/api/v1/containers/{id}/sync", operation_id = "containers.sync", tag = "containers",
    params(("id" = String, Path), SyncQuery),
    responses((status = 200, body = Success<SyncData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 421, body = Failure), (status = 503, body = Failure), (status = 504, body = Failure)))]
pub(super) async fn sync(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Query(query): Query<SyncQuery>,
) -> Result<Reply<SyncData>, ServiceError> {
    let begun = service::sync(&app, &caller, id, query.if_diverged).await?;
    let data = SyncData {
        container_id: begun.container.to_string(),
        source_container_id: begun.source.to_string(),
        status: "syncing",
    };
    Ok(Reply::ok(data, "the sync has begun: the container's status log says how it ends"))
}
