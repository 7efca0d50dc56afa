//! `/admin/invite-codes`: codes that open the free tier.

use super::Admin;
use crate::{
    api::{
        envelope::{Failure, Reply, Success},
        json::Json,
        path::Id,
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::free_tier,
    store::invite_code::{self as store, InviteCode},
};
use axum::extract::State;
use hoody_protocol::id::RequestId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest life of a code that has an end, seconds: a hundred years.
const MAX_LIFETIME_S: i64 = 100 * 365 * 24 * 60 * 60;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

#[derive(Serialize, ToSchema)]
struct InviteCodeData {
    id: String,
    note: String,
    max_uses: i64,
    uses: i64,
    expires_at: Option<String>,
    created_at: String,
}

impl From<InviteCode> for InviteCodeData {
    fn from(code: InviteCode) -> Self {
        Self {
            id: code.id,
            note: code.note,
            max_uses: code.max_uses,
            uses: code.uses,
            expires_at: code.expires_at.map(rfc3339),
            created_at: rfc3339(code.created_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct InviteCodeList {
    invite_codes: Vec<InviteCodeData>,
}

/// List invite codes
#[utoipa::path(get, path = "/api/v1/admin/invite-codes", operation_id = "admin.inviteCodes.list", tag = "admin",
    responses((status = 200, body = Success<InviteCodeList>), (status = 401, body = Failure),
        (status = 403, body = Failure)))]
async fn list(State(app): State<App>, _admin: Admin) -> Result<Reply<InviteCodeList>, ServiceError> {
    let invite_codes = store::list(&app.store).await?.into_iter().map(InviteCodeData::from).collect();
    Ok(Reply::ok(InviteCodeList { invite_codes }, "these are the invite codes, without the codes"))
}

#[derive(Deserialize, ToSchema)]
struct InviteCodeInput {
    /// What the code is for.
    #[serde(default)]
    #[schema(max_length = 200)]
    note: String,
    /// How many accounts may use it; 1 by default.
    max_uses: Option<i64>,
    /// Seconds; for ever where it is left out.
    expires_in: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct NewInviteCodeData {
    /// Shown this once.
    code: String,
    #[serde(flatten)]
    invite_code: InviteCodeData,
}

/// Make an invite code
#[utoipa::path(post, path = "/api/v1/admin/invite-codes", operation_id = "admin.inviteCodes.create", tag = "admin",
    request_body = InviteCodeInput,
    responses((status = 201, body = Success<NewInviteCodeData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn create(
    State(app): State<App>,
    _admin: Admin,
    Json(input): Json<InviteCodeInput>,
) -> Result<Reply<NewInviteCodeData>, ServiceError> {
    if input.expires_in.is_some_and(|seconds| !(1..=MAX_LIFETIME_S).contains(&seconds)) {
        return Err(ServiceError::invalid("expires_in", format!("must be from 1 to {MAX_LIFETIME_S} seconds")));
    }
    let lifetime_ms = input.expires_in.map(|seconds| seconds * 1000);
    let (code, made) = free_tier::create_code(&app, &input.note, input.max_uses.unwrap_or(1), lifetime_ms).await?;
    Ok(Reply::created(NewInviteCodeData { code, invite_code: made.into() }, "pass the code on: it is not shown again"))
}

/// Delete an invite code; what it opened stays open
#[utoipa::path(delete, path = "/api/v1/admin/invite-codes/{id}", operation_id = "admin.inviteCodes.delete", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn delete(State(app): State<App>, _admin: Admin, Id(id): Id<RequestId>) -> Result<Reply<()>, ServiceError> {
    if !store::delete(&app.store, &id.to_string()).await? {
        return Err(ServiceError::NotFound("invite code"));
    }
    Ok(Reply::ok((), "the code opens nothing any more"))
}
