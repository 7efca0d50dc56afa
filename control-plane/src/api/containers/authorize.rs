//! Container claims.

use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        json::Json,
        path::Id,
    },
    app::App,
    error::ServiceError,
    keys::SignedClaim,
    service::container::{self as service, ContainerClaimInput},
};
use axum::extract::State;
use hoody_protocol::id::ContainerId;
use serde::Serialize;
use utoipa::ToSchema;

/// A claim.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuthorizationData {
    container_id: String,
    project_id: String,
    /// Seconds that it is valid.
    expires_in: u64,
    container_claim: SignedClaim,
}

/// A signed statement that you may use a container, for one audience
///
/// Verify it with the keys of `/meta/public-key`: Ed25519 over the payload's bytes; then `typ`, `aud`, `container_id` and
/// `exp` in it.
#[utoipa::path(post, path = "/api/v1/containers/{id}/authorize", operation_id = "containers.authorize", tag = "containers",
    params(("id" = String, Path)), request_body = ContainerClaimInput,
    responses((status = 200, body = Success<AuthorizationData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
pub(super) async fn authorize(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<ContainerClaimInput>,
) -> Result<Reply<AuthorizationData>, ServiceError> {
    let issued = service::authorize(&app, &caller, id, input).await?;
    let data = AuthorizationData {
        container_id: id.to_string(),
        project_id: issued.container.spec.project.to_string(),
        expires_in: issued.lifetime_s,
        container_claim: issued.claim,
    };
    Ok(Reply::ok(data, "the audience verifies this with our public keys"))
}
