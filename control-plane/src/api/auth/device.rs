//! Devices without a browser (RFC 8628).

use super::{
    check_client, data::LoginOutcome, intent::check_token, launch::provider, login_name, present_password,
    provider::leave,
};
use crate::{
    api::{
        counted, device_page,
        envelope::{Failure, Reply, Success},
        json::Json,
        query::Query,
    },
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::attempts,
        sign_in::{self, device as service, flow},
    },
};
use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Characters of the longest code that is looked at.
const MAX_USER_CODE_CHARS: usize = 16;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(code))
        .routes(routes!(verify_code))
        .routes(routes!(login))
        .routes(routes!(authorize))
        .routes(routes!(deny))
        .routes(routes!(token))
}

fn refuse(problems: BTreeMap<String, String>) -> Result<(), ServiceError> {
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = DeviceCodeInput)]
struct CodeInput {
    /// What the device calls itself; people see it before they let it in.
    #[schema(max_length = 64)]
    client: Option<String>,
    /// Another word for `client`.
    #[schema(max_length = 64)]
    client_name: Option<String>,
    /// The SHA-256 of a verifier that the device then must show, base64url (PKCE, S256).
    #[schema(min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
    code_challenge: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeviceCodeData)]
struct CodeData {
    /// The device polls `/auth/device/token` with this and shows it to nobody.
    device_code: String,
    /// The device shows this.
    user_code: String,
    /// Where it is typed.
    verification_uri: String,
    /// The same with the code typed already.
    verification_uri_complete: String,
    /// Seconds that the code is valid.
    expires_in: u64,
    /// Seconds between two polls.
    interval: u64,
}

/// Begin at the device
#[utoipa::path(post, path = "/api/v1/auth/device/code", operation_id = "authentication.oauthDeviceCode",
    tag = "authentication", request_body = CodeInput, security(()),
    responses((status = 200, body = Success<CodeData>), (status = 400, body = Failure), (status = 409, body = Failure),
        (status = 429, body = Failure)))]
async fn code(State(app): State<App>, origin: Origin, Json(input): Json<CodeInput>) -> Result<Response, ServiceError> {
    let client = input.client_name.or(input.client);
    let mut problems = BTreeMap::new();
    check_client(client.as_deref(), &mut problems);
    if let Some(challenge) = &input.code_challenge {
        sign_in::check_challenge(challenge, &mut problems);
    }
    refuse(problems)?;
    let allowance = attempts::device(&app, origin.address).await?;
    let work = async {
        let begun = service::begin(&app, client.as_deref(), input.code_challenge.as_deref(), &origin).await?;
        let page = device_page::url(&app);
        let data = CodeData {
            device_code: begun.device_code.to_string(),
            verification_uri_complete: format!("{page}?code={}", begun.user_code),
            verification_uri: page,
            user_code: begun.user_code,
            expires_in: service::LIFETIME.as_secs(),
            interval: service::INTERVAL.as_secs(),
        };
        Ok::<_, ServiceError>(Reply::ok(data, "show the code and the address, and poll /auth/device/token"))
    };
    Ok(counted::within(allowance, work).await)
}

#[derive(Deserialize, ToSchema)]
struct UserCodeInput {
    /// As the device shows it; case and hyphens do not matter.
    #[schema(max_length = 16)]
    #[serde(default)]
    user_code: String,
}

#[derive(Serialize, ToSchema)]
struct TicketData {
    /// For the next step.
    ticket: String,
    /// What the device calls itself.
    client: Option<String>,
    client_name: Option<String>,
    /// Where the device is.
    ip_address: String,
    expires_at: String,
}

/// Find the device of a typed code
#[utoipa::path(post, path = "/api/v1/auth/device/verify_code", operation_id = "authentication.oauthDeviceVerifyCode",
    tag = "authentication", request_body = UserCodeInput, security(()),
    responses((status = 200, body = Success<TicketData>), (status = 400, body = Failure),
        (status = 429, body = Failure)))]
async fn verify_code(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<UserCodeInput>,
) -> Result<Response, ServiceError> {
    let chars = input.user_code.trim().chars().count();
    if !(1..=MAX_USER_CODE_CHARS).contains(&chars) {
        let problem = format!("must be the code that the device shows, at most {MAX_USER_CODE_CHARS} characters");
        return Err(ServiceError::invalid("user_code", problem));
    }
    let allowance = attempts::device(&app, origin.address).await?;
    let work = async {
        let (ticket, device) = service::verify_code(&app, &input.user_code).await?;
        let data = TicketData {
            ticket: ticket.to_string(),
            client_name: device.client.clone(),
            client: device.client,
            ip_address: device.ip_address,
            expires_at: crate::api::time::rfc3339(device.expires_at),
        };
        Ok::<_, ServiceError>(Reply::ok(data, "sign in to let this device in, or deny it"))
    };
    Ok(counted::within(allowance, work).await)
}

#[derive(Deserialize, ToSchema)]
struct DeviceLoginInput {
    /// From `/auth/device/verify_code`.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    #[serde(default)]
    ticket: String,
    /// The user name (or the e-mail address).
    #[schema(max_length = 255)]
    username: Option<String>,
    /// Another word for `username`.
    #[schema(max_length = 255)]
    alias: Option<String>,
    /// The e-mail address.
    #[schema(max_length = 255)]
    email: Option<String>,
    #[schema(value_type = String, min_length = 8, max_length = 128)]
    #[serde(default)]
    password: Option<String>,
}

/// Let the device in, with user name and password
///
/// Where the account has two-factor authentication, the answer is a temporary token for
/// `/users/auth/2fa/verify`, which then lets the device in.
#[utoipa::path(post, path = "/api/v1/auth/device/login", operation_id = "authentication.oauthDeviceLogin",
    tag = "authentication", request_body = DeviceLoginInput, security(()),
    responses((status = 200, body = Success<LoginOutcome>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure), (status = 429, body = Failure)))]
async fn login(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<DeviceLoginInput>,
) -> Result<Response, ServiceError> {
    let mut problems = BTreeMap::new();
    check_token("ticket", &input.ticket, &mut problems);
    let name = login_name([input.username, input.alias, input.email], &mut problems);
    let secret = present_password(input.password, &mut problems);
    refuse(problems)?;
    let allowance = attempts::login(&app, origin.address, &name).await?;
    let work = async {
        let login = service::login(&app, &input.ticket, &name, secret, &origin).await?;
        LoginOutcome::new(&app, login, origin.address).await
    };
    Ok(counted::within(allowance, work).await)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ProviderTicket {
    /// From `/auth/device/verify_code`.
    #[param(required = true)]
    #[serde(default)]
    ticket: String,
    /// `github` or `google`.
    #[param(required = true, pattern = "^(github|google)$")]
    #[serde(default)]
    provider: String,
}

/// Let the device in, with GitHub or Google
///
/// Sends the browser to the provider, and from there to the page for devices.
#[utoipa::path(get, path = "/api/v1/auth/device/authorize", operation_id = "authentication.oauthDeviceAuthorize",
    tag = "authentication", params(ProviderTicket), security(()),
    responses((status = 302, description = "to the provider"), (status = 400, body = Failure),
        (status = 404, body = Failure), (status = 429, body = Failure), (status = 503, body = Failure)))]
async fn authorize(
    State(app): State<App>,
    origin: Origin,
    Query(input): Query<ProviderTicket>,
) -> Result<Response, ServiceError> {
    let mut problems = BTreeMap::new();
    check_token("ticket", &input.ticket, &mut problems);
    let provider = provider(&input.provider, &mut problems);
    let Some(provider) = provider.filter(|_| problems.is_empty()) else {
        return Err(ServiceError::Invalid(problems));
    };
    attempts::provider(&app, origin.address).await?;
    Ok(leave(&app, flow::begin_device(&app, provider, &input.ticket).await?))
}

#[derive(Deserialize, ToSchema)]
struct TicketInput {
    /// From `/auth/device/verify_code`.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    #[serde(default)]
    ticket: String,
}

#[derive(Serialize, ToSchema)]
struct DeniedData {
    /// Always `denied`.
    status: &'static str,
}

/// Turn the device away
#[utoipa::path(post, path = "/api/v1/auth/device/deny", operation_id = "authentication.oauthDeviceDeny",
    tag = "authentication", request_body = TicketInput, security(()),
    responses((status = 200, body = Success<DeniedData>), (status = 400, body = Failure),
        (status = 404, body = Failure)))]
async fn deny(State(app): State<App>, Json(input): Json<TicketInput>) -> Result<Reply<DeniedData>, ServiceError> {
    let mut problems = BTreeMap::new();
    check_token("ticket", &input.ticket, &mut problems);
    refuse(problems)?;
    service::deny(&app, &input.ticket).await?;
    Ok(Reply::ok(DeniedData { status: "denied" }, "the device is turned away"))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = DeviceTokenInput)]
struct TokenInput {
    /// From `/auth/device/code`.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    #[serde(default)]
    device_code: String,
    /// What the challenge was made of, where there was one.
    #[schema(min_length = 43, max_length = 128, pattern = "^[A-Za-z0-9_\\-.~]+$")]
    code_verifier: Option<String>,
}

/// The device's session, once it is let in
///
/// Until then 400 with `code` `authorization_pending`, `slow_down` (add five seconds to the interval),
/// `expired_token`, `access_denied` or `invalid_grant`.
#[utoipa::path(post, path = "/api/v1/auth/device/token", operation_id = "authentication.oauthDeviceToken",
    tag = "authentication", request_body = TokenInput, security(()),
    responses((status = 200, body = Success<LoginOutcome>), (status = 400, body = Failure),
        (status = 403, body = Failure)))]
async fn token(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<TokenInput>,
) -> Result<Reply<LoginOutcome>, ServiceError> {
    let mut problems = BTreeMap::new();
    check_token("device_code", &input.device_code, &mut problems);
    if let Some(verifier) = &input.code_verifier {
        sign_in::check_verifier(verifier, &mut problems);
    }
    refuse(problems)?;
    let entered = service::token(&app, &input.device_code, input.code_verifier.as_deref(), &origin).await?;
    LoginOutcome::entered(&app, entered, origin.address).await
}
