//! Identity claims.

use crate::{
    api::{
        caller::Account,
        envelope::{Failure, Reply, Success},
        json::Json,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    keys::SignedClaim,
    service::identity,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(identity_claim))
}

#[derive(Deserialize, ToSchema)]
struct ClaimInput {
    /// Who will verify the claim.
    #[schema(min_length = 1, max_length = 256)]
    audience: String,
    /// Seconds that the claim is valid; 3600 by default.
    #[schema(minimum = 60, maximum = 86400)]
    expires_in: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct ClaimData {
    audience: String,
    expires_at: String,
    expires_in: u64,
    identity_claim: SignedClaim,
}

/// A signed statement of who you are, for one audience
///
/// Verify it with the keys of `/meta/public-key`: Ed25519 over the payload's bytes.
#[utoipa::path(post, path = "/api/v1/users/auth/identity-claim", operation_id = "authentication.api_issueIdentityClaim",
    tag = "authentication", request_body = ClaimInput,
    responses((status = 200, body = Success<ClaimData>), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn identity_claim(
    State(app): State<App>,
    account: Account,
    Json(input): Json<ClaimInput>,
) -> Result<Reply<ClaimData>, ServiceError> {
    let issued = identity::issue(&app, &account.user, &input.audience, input.expires_in)?;
    let data = ClaimData {
        audience: input.audience,
        expires_at: rfc3339(issued.expires_at as i64 * 1000),
        expires_in: issued.lifetime_s,
        identity_claim: issued.claim,
    };
    Ok(Reply::ok(data, "the audience verifies this with our public keys"))
}
