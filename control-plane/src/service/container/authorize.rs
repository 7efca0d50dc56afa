//! Container claims: signed statements that a user may use a container, for one audience. Whoever is named as the audience
//! verifies them with our public keys, without asking us.

use super::authorise;
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    keys::SignedClaim,
    service::identity,
    store::container::{self, ContainerRow},
};
use hoody_protocol::{
    container::Desired,
    id::{ContainerId, RequestId},
    time::now_ms,
};
use serde::Deserialize;
use serde_json::{Map, json};
use utoipa::ToSchema;

/// What a client asks for; all of it may be absent.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct ContainerClaimInput {
    /// Who will verify the claim; absent: the container, by its URL in this API.
    #[schema(max_length = 256)]
    pub audience: Option<String>,
    /// Seconds that the claim is valid; 3600 by default.
    #[schema(minimum = 60, maximum = 86400)]
    pub expires_in: Option<u64>,
}

/// A claim and what it is about.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// The container.
    pub container: ContainerRow,
    /// The claim.
    pub claim: SignedClaim,
    /// Seconds that it is valid.
    pub lifetime_s: u64,
}

/// Issues a claim to a caller who may change the container.
pub async fn authorize(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: ContainerClaimInput,
) -> Result<Authorization, ServiceError> {
    let row = container::get(&app.store, id).await?.ok_or(ServiceError::NotFound("container"))?;
    authorise(app.store.reader(), caller, &row, Level::Edit).await?;
    if row.spec.desired == Desired::Deleted {
        return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
    }
    let issuer = &app.config.public_url;
    let audience = input.audience.unwrap_or_else(|| format!("{}/api/v1/containers/{id}", issuer.trim_end_matches('/')));
    let lifetime_s = identity::check(&audience, input.expires_in)?;
    let now = now_ms() / 1000;
    let payload = Map::from_iter([
        // Never taken for an identity, which has another type.
        ("typ".to_owned(), json!("container")),
        ("iss".to_owned(), json!(issuer)),
        ("aud".to_owned(), json!(audience)),
        ("sub".to_owned(), json!(caller.user.to_string())),
        ("container_id".to_owned(), json!(id.to_string())),
        ("project_id".to_owned(), json!(row.spec.project.to_string())),
        ("owner_id".to_owned(), json!(row.spec.owner.to_string())),
        ("jti".to_owned(), json!(RequestId::generate().to_string())),
        ("iat".to_owned(), json!(now)),
        ("exp".to_owned(), json!(now + lifetime_s)),
    ]);
    let claim = app.keys.responses.sign_claim(&payload);
    Ok(Authorization { container: row, claim, lifetime_s })
}
