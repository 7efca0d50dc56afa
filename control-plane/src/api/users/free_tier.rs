//! The free tier of one's own account.

use crate::{
    api::{
        auth::data::HomeData,
        caller::{Account, Identity},
        envelope::{Failure, Reply, Success},
        json::Json,
    },
    app::App,
    error::ServiceError,
    service::{
        account::policy::{self, Problems},
        free_tier::{self as service, Blocked},
    },
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(redeem)).routes(routes!(retry))
}

#[derive(Serialize, ToSchema)]
#[schema(as = FreeTierStatusData)]
struct StatusData {
    can_claim: bool,
    /// `none`, `invite_required`, `pool_empty` or `already_claimed`.
    claim_blocked_reason: &'static str,
    /// The free tier needs an invite code.
    gate_enabled: bool,
    has_free_server: bool,
    /// The invite code sent with the sign-up was not good.
    signup_code_failed: bool,
    unlocked: bool,
}

/// Where your account stands in the free tier
#[utoipa::path(get, path = "/api/v1/users/me/free-tier-status", operation_id = "users.getFreeTierStatus", tag = "users",
    responses((status = 200, body = Success<StatusData>), (status = 401, body = Failure)))]
async fn status(State(app): State<App>, identity: Identity) -> Result<Reply<StatusData>, ServiceError> {
    let status = service::status(&app, identity.user.id).await?;
    let data = StatusData {
        can_claim: status.blocked == Blocked::No,
        claim_blocked_reason: status.blocked.word(),
        gate_enabled: app.config.free_tier.needs_invite,
        has_free_server: status.has_server,
        signup_code_failed: status.signup_code_failed,
        unlocked: status.unlocked,
    };
    Ok(Reply::ok(data, "this is where your account stands"))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = FreeTierCodeInput)]
struct CodeInput {
    #[schema(min_length = 1, max_length = 64)]
    #[serde(default)]
    code: String,
}

#[derive(Serialize, ToSchema)]
struct RedeemData {
    /// `none` or `pool_empty`.
    claim_blocked_reason: &'static str,
    /// The free tier needs an invite code.
    required: bool,
    unlocked: bool,
    #[serde(flatten)]
    home: HomeData,
}

/// Open the free tier with an invite code, and claim a free server
#[utoipa::path(post, path = "/api/v1/users/me/redeem-invite", operation_id = "users.redeemInviteCode", tag = "users",
    request_body = CodeInput,
    responses((status = 200, body = Success<RedeemData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 429, body = Failure)))]
async fn redeem(
    State(app): State<App>,
    account: Account,
    Json(input): Json<CodeInput>,
) -> Result<Reply<RedeemData>, ServiceError> {
    let blocked = service::redeem(&app, &account.user, &input.code).await?;
    let data = RedeemData {
        claim_blocked_reason: if blocked == Blocked::PoolEmpty { blocked.word() } else { Blocked::No.word() },
        required: app.config.free_tier.needs_invite,
        unlocked: true,
        home: service::home(&app, account.user.id).await?.into(),
    };
    let message = match blocked {
        Blocked::PoolEmpty => "the free tier is open to you, but no free server is left: try again later",
        _ => "the free tier is open to you",
    };
    Ok(Reply::ok(data, message))
}

#[derive(Deserialize, ToSchema)]
struct RetryInput {
    /// Where the server should be, if there is one.
    #[schema(max_length = 50, pattern = "^[a-z0-9-]+$")]
    region: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct RetryData {
    /// `admin_recovery_required` where the free server was claimed once and is gone.
    blocked_reason: Option<&'static str>,
    #[serde(flatten)]
    home: HomeData,
}

/// Claim a free server, and make the default project and container
///
/// Whatever is there already stays.
#[utoipa::path(post, path = "/api/v1/users/me/retry-setup", operation_id = "users.retrySetup", tag = "users",
    request_body = RetryInput,
    responses((status = 200, body = Success<RetryData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 409, body = Failure)))]
async fn retry(
    State(app): State<App>,
    account: Account,
    Json(input): Json<RetryInput>,
) -> Result<Reply<RetryData>, ServiceError> {
    let mut problems = Problems::new();
    service::check_region(input.region.as_deref(), &mut problems);
    policy::none_of(problems)?;
    let blocked_reason = match service::claim(&app, &account.user, input.region.as_deref()).await? {
        Blocked::No => None,
        Blocked::AlreadyClaimed => Some("admin_recovery_required"),
        Blocked::InviteRequired => {
            return Err(ServiceError::Forbidden("a free server needs an invite code: redeem one first".to_owned()));
        }
        Blocked::PoolEmpty => {
            return Err(ServiceError::Conflict("no free server is left: try again later".to_owned()));
        }
    };
    let message = match blocked_reason {
        None => "this is what you have",
        Some(_) => "you had a free server before: ask an operator for another one",
    };
    let home = service::home(&app, account.user.id).await?.into();
    Ok(Reply::ok(RetryData { blocked_reason, home }, message))
}
