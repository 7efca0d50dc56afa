//! `/users`: accounts, and what belongs to one's own.

mod free_tier;
mod history;

use super::{
    auth::data::UserData,
    caller::{Account, Caller},
    envelope::{Failure, Reply, Success},
    json::Json,
    path::Id,
};
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::account::profile::{self as service, Input},
    store::profile::Object,
};
use axum::extract::State;
use hoody_protocol::id::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get, update, patch))
        .routes(routes!(onboarding))
        .merge(free_tier::router())
        .merge(history::router())
}

/// An account
///
/// One's own; operators see every one.
#[utoipa::path(get, path = "/api/v1/users/{id}", operation_id = "users.get", tag = "users",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<UserData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn get(State(app): State<App>, caller: Caller, Id(id): Id<UserId>) -> Result<Reply<UserData>, ServiceError> {
    let (user, profile) = service::get(&app, &caller, id).await?;
    Ok(Reply::ok(UserData::new(user, profile, &app), "this is the account"))
}

#[derive(Deserialize, ToSchema)]
struct UserInput {
    /// Name for people.
    #[schema(min_length = 1, max_length = 100)]
    alias: Option<String>,
    /// Replaces what clients keep about the account; at most 16 KiB of JSON.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Object>,
    /// Ed25519.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    public_key: Option<String>,
    /// A new password; ends every other session.
    #[schema(min_length = 12, max_length = 128)]
    password: Option<String>,
    /// Needed for a new password of one's own.
    #[schema(min_length = 8, max_length = 128)]
    current_password: Option<String>,
    /// Operators only.
    is_admin: Option<bool>,
    /// Operators only; a ban ends every session.
    is_banned: Option<bool>,
}

/// Change an account
#[utoipa::path(put, path = "/api/v1/users/{id}", operation_id = "users.update", tag = "users",
    params(("id" = String, Path)), request_body = UserInput,
    responses((status = 200, body = Success<UserData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn update(
    State(app): State<App>,
    account: Account,
    caller: Caller,
    origin: Origin,
    Id(id): Id<UserId>,
    Json(input): Json<UserInput>,
) -> Result<Reply<UserData>, ServiceError> {
    let input = Input {
        alias: input.alias,
        metadata: input.metadata,
        public_key: input.public_key,
        password: input.password.map(Into::into),
        current_password: input.current_password.map(Into::into),
        is_admin: input.is_admin,
        is_banned: input.is_banned,
    };
    let (user, profile) = service::update(&app, &caller, Some(account.claims.sid), id, input, &origin).await?;
    Ok(Reply::ok(UserData::new(user, profile, &app), "account updated"))
}

/// Change an account
#[utoipa::path(patch, path = "/api/v1/users/{id}", operation_id = "users.patch", tag = "users",
    params(("id" = String, Path)), request_body = UserInput,
    responses((status = 200, body = Success<UserData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn patch(
    app: State<App>,
    account: Account,
    caller: Caller,
    origin: Origin,
    id: Id<UserId>,
    input: Json<UserInput>,
) -> Result<Reply<UserData>, ServiceError> {
    update(app, account, caller, origin, id, input).await
}

#[derive(Deserialize, ToSchema)]
struct MilestoneInput {
    #[schema(pattern = "^(hub_tour_v[0-9]{1,3}|dashboard_[a-z0-9_]{1,30}|onboarding_[a-z0-9_]{1,30})$")]
    #[serde(default)]
    milestone: String,
}

#[derive(Serialize, ToSchema)]
struct OnboardingData {
    /// Milestone → when it was first reached.
    #[schema(value_type = Object)]
    onboarding: Object,
}

/// Note that a milestone was reached
#[utoipa::path(post, path = "/api/v1/users/me/onboarding", operation_id = "users.markOnboardingMilestone", tag = "users",
    request_body = MilestoneInput,
    responses((status = 200, body = Success<OnboardingData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 409, body = Failure)))]
async fn onboarding(
    State(app): State<App>,
    account: Account,
    Json(input): Json<MilestoneInput>,
) -> Result<Reply<OnboardingData>, ServiceError> {
    let onboarding = service::milestone(&app, account.user.id, &input.milestone).await?;
    Ok(Reply::ok(OnboardingData { onboarding }, "noted"))
}
