//! Sign-up, verification, and where free servers are.

use super::{check_client, data::LoginOutcome, present_password, purpose};
use crate::{
    api::{
        counted,
        envelope::{Failure, Reply, Success},
        json::Json,
    },
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::sign_up::{self as service, Input},
        free_tier,
    },
};
use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(verify_email))
        .routes(routes!(resend))
        .routes(routes!(regions))
}

#[derive(Deserialize, ToSchema)]
struct SignUpInput {
    #[serde(default)]
    #[schema(max_length = 255)]
    email: String,
    /// Taken from the address where it is left out; where it is taken, something is added.
    #[schema(min_length = 3, max_length = 50, pattern = "^[a-zA-Z0-9_-]+$")]
    username: Option<String>,
    /// Another word for `username`.
    #[schema(max_length = 50)]
    alias: Option<String>,
    #[serde(default)]
    #[schema(min_length = 12, max_length = 128)]
    password: String,
    /// Where the free server should be.
    #[schema(max_length = 50, pattern = "^[a-z0-9-]+$")]
    region: Option<String>,
    /// Opens the free tier.
    #[schema(min_length = 1, max_length = 128)]
    invite_code: Option<String>,
    /// What the client calls itself.
    #[schema(max_length = 64)]
    client: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct EmailData {
    email: String,
}

/// Sign up
///
/// A mail with a token goes to the address; `/auth/verify-email` makes the account with it. The answer is the
/// same where the address has an account.
#[utoipa::path(post, path = "/api/v1/auth/signup", operation_id = "authentication.signup", tag = "authentication",
    request_body = SignUpInput, security(()),
    responses((status = 200, body = Success<EmailData>), (status = 400, body = Failure), (status = 429, body = Failure)))]
async fn sign_up(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<SignUpInput>,
) -> Result<Response, ServiceError> {
    let mut problems = BTreeMap::new();
    check_client(input.client.as_deref(), &mut problems);
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    let input = Input {
        email: input.email,
        username: input.username.or(input.alias),
        password: input.password.into(),
        region: input.region,
        invite_code: input.invite_code,
    };
    let work = async {
        let email = service::sign_up(&app, input, &origin).await?;
        Ok(Reply::ok(EmailData { email }, "a mail with a token is on its way: verify the address with it"))
    };
    counted::as_sign_up(&app, &origin, work).await
}

#[derive(Deserialize, ToSchema)]
#[schema(as = SignUpVerifyInput)]
struct VerifyInput {
    /// From the mail.
    #[serde(default)]
    #[schema(min_length = 64, max_length = 64)]
    token: String,
    /// The password that was signed up with. Where it is given it must be right: a page that asks for it lets
    /// nobody open an account that a stranger signed up for with their address.
    #[schema(min_length = 8, max_length = 128)]
    password: Option<String>,
    /// What the client calls itself.
    #[schema(max_length = 64)]
    client: Option<String>,
    /// `tokens`, or `intent`: a token for `/auth/authorize`, which needs `code_challenge`.
    #[schema(pattern = "^(intent|tokens)$")]
    response_mode: Option<String>,
    /// For an intent: the SHA-256 of the application's verifier, base64url (PKCE, S256).
    code_challenge: Option<String>,
}

/// Verify the e-mail address of a sign-up
///
/// Makes the account, logs it in, and gives it a free server where there is one.
#[utoipa::path(post, path = "/api/v1/auth/verify-email", operation_id = "authentication.verifyEmail",
    tag = "authentication", request_body = VerifyInput, security(()),
    responses((status = 200, body = Success<LoginOutcome>), (status = 400, body = Failure),
        (status = 409, body = Failure)))]
async fn verify_email(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<VerifyInput>,
) -> Result<Reply<LoginOutcome>, ServiceError> {
    let mut problems = BTreeMap::new();
    check_client(input.client.as_deref(), &mut problems);
    let purpose = purpose(input.response_mode.as_deref(), input.code_challenge, &mut problems);
    let password = input.password.map(|secret| present_password(Some(secret), &mut problems));
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    let origin = origin.named(input.client);
    let entered = service::verify(&app, input.token.trim(), password, &purpose, &origin).await?;
    LoginOutcome::entered(&app, entered, origin.address).await
}

#[derive(Deserialize, ToSchema)]
pub(super) struct EmailInput {
    #[serde(default)]
    #[schema(max_length = 255)]
    pub(super) email: String,
}

/// Send the mail of a sign-up again
///
/// The answer is the same whether a sign-up waits or not.
#[utoipa::path(post, path = "/api/v1/auth/resend-verification", operation_id = "authentication.resendVerification",
    tag = "authentication", request_body = EmailInput, security(()),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 429, body = Failure)))]
async fn resend(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<EmailInput>,
) -> Result<Response, ServiceError> {
    let work = async {
        service::resend(&app, &input.email).await?;
        Ok(Reply::ok((), "if a sign-up waits for this address, its mail is on its way again"))
    };
    counted::as_sign_up(&app, &origin, work).await
}

#[derive(Serialize, ToSchema)]
struct RegionData {
    region: String,
    country: String,
    city: String,
    /// A free server is left.
    available: bool,
}

#[derive(Serialize, ToSchema)]
struct RegionList {
    regions: Vec<RegionData>,
}

/// Where free servers are
#[utoipa::path(get, path = "/api/v1/auth/available-regions", operation_id = "authentication.getAvailableRegions",
    tag = "authentication", security(()), responses((status = 200, body = Success<RegionList>)))]
async fn regions(State(app): State<App>) -> Result<Reply<RegionList>, ServiceError> {
    let regions = free_tier::regions(&app).await?.into_iter().map(|region| RegionData {
        available: region.unclaimed > 0,
        region: region.region,
        country: region.country,
        city: region.city,
    });
    Ok(Reply::ok(RegionList { regions: regions.collect() }, "name one of these when you sign up"))
}
