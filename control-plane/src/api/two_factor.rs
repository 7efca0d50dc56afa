//! `/users/auth/2fa`: two-factor authentication.

use super::{
    auth::{
        check_client,
        data::{LoginOutcome, TokenData},
        present_password, wants_intent,
    },
    caller::{self, Account, Identity},
    envelope::{Failure, Reply, Success},
    json::Json,
    time::rfc3339,
};
use crate::{app::App, caller::Origin, error::ServiceError, service::two_factor as service};
use axum::extract::State;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(set_up))
        .routes(routes!(verify_setup))
        .routes(routes!(verify))
        .routes(routes!(regenerate))
        .routes(routes!(disable))
        .routes(routes!(token_gate, token_gate_patch))
}

#[derive(Serialize, ToSchema)]
#[schema(as = TwoFactorStatusData)]
struct StatusData {
    enabled: bool,
    /// A code was shown after the setup.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled_at: Option<String>,
    backup_codes_remaining: i64,
    #[serde(rename = "backupCodesRemaining")]
    backup_codes_remaining_camel: i64,
    /// Auth tokens are only made and changed with a code.
    require_for_tokens: bool,
}

/// What protects the account
#[utoipa::path(get, path = "/api/v1/users/auth/2fa/status", operation_id = "tfa.getStatus", tag = "tfa",
    responses((status = 200, body = Success<StatusData>), (status = 401, body = Failure)))]
async fn status(State(app): State<App>, identity: Identity) -> Result<Reply<StatusData>, ServiceError> {
    let status = service::status(&app, identity.user.id).await?;
    let data = StatusData {
        enabled: status.enabled_at.is_some(),
        verified: status.enabled_at.is_some(),
        enabled_at: status.enabled_at.map(rfc3339),
        backup_codes_remaining: status.backup_codes,
        backup_codes_remaining_camel: status.backup_codes,
        require_for_tokens: status.require_for_tokens,
    };
    let message = if status.set_up && status.enabled_at.is_none() {
        "set up, but not in force: verify the setup with a code"
    } else {
        "this is how the account is protected"
    };
    Ok(Reply::ok(data, message))
}

#[derive(Deserialize, ToSchema)]
struct PasswordInput {
    #[schema(value_type = String, min_length = 8, max_length = 128)]
    password: Option<String>,
}

/// What an authenticator needs, under every name that clients know; shown once.
#[derive(Serialize, ToSchema)]
struct SetupData {
    /// PNG in a data URL.
    qr_code: String,
    manual_entry_key: String,
    backup_codes: Vec<String>,
    #[serde(rename = "qrCode")]
    qr_code_camel: String,
    secret: String,
    #[serde(rename = "backupCodes")]
    backup_codes_camel: Vec<String>,
}

/// Begin: a secret for the authenticator and ten backup codes
///
/// In force once `/verify-setup` has seen a code. Shown once.
#[utoipa::path(post, path = "/api/v1/users/auth/2fa/setup", operation_id = "tfa.setup", tag = "tfa",
    request_body = PasswordInput,
    responses((status = 200, body = Success<SetupData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 409, body = Failure), (status = 429, body = Failure)))]
async fn set_up(
    State(app): State<App>,
    account: Account,
    Json(input): Json<PasswordInput>,
) -> Result<Reply<SetupData>, ServiceError> {
    let mut problems = BTreeMap::new();
    let password = present_password(input.password, &mut problems);
    refuse(problems)?;
    let setup = service::set_up(&app, &account.user, password).await?;
    let data = SetupData {
        qr_code: setup.qr_code.clone(),
        qr_code_camel: setup.qr_code,
        manual_entry_key: setup.secret.clone(),
        secret: setup.secret,
        backup_codes: setup.backup_codes.clone(),
        backup_codes_camel: setup.backup_codes,
    };
    Ok(Reply::ok(data, "scan the code, keep the backup codes, and verify the setup with a code"))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TwoFactorCodeInput)]
struct CodeInput {
    #[schema(pattern = "^\\d{6}$")]
    #[serde(default)]
    code: String,
}

#[derive(Serialize, ToSchema)]
struct EnabledData {
    enabled: bool,
    enabled_at: String,
    sessions_revoked: bool,
    #[serde(flatten)]
    tokens: TokenData,
}

/// Put the setup in force with a code
///
/// Ends every session; the answer carries new tokens.
#[utoipa::path(post, path = "/api/v1/users/auth/2fa/verify-setup", operation_id = "tfa.verifySetup", tag = "tfa",
    request_body = CodeInput,
    responses((status = 200, body = Success<EnabledData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 409, body = Failure), (status = 429, body = Failure)))]
async fn verify_setup(
    State(app): State<App>,
    account: Account,
    origin: Origin,
    Json(input): Json<CodeInput>,
) -> Result<Reply<EnabledData>, ServiceError> {
    let mut problems = BTreeMap::new();
    six_digits(&input.code, &mut problems);
    refuse(problems)?;
    let (enabled_at, tokens) = service::verify_setup(&app, &account.user, &input.code, &origin).await?;
    let data =
        EnabledData { enabled: true, enabled_at: rfc3339(enabled_at), sessions_revoked: true, tokens: tokens.into() };
    Ok(Reply::ok(data, "two-factor authentication is on; other sessions were ended"))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TwoFactorVerifyInput)]
struct VerifyInput {
    /// Six digits, or a backup code.
    #[serde(default)]
    code: String,
    /// From the login; may stand in the Authorization header instead.
    #[serde(alias = "tempToken")]
    temp_token: Option<String>,
    /// What the client calls itself.
    #[schema(max_length = 64)]
    client: Option<String>,
    /// `intent` where the login was for one; what the answer is was decided there.
    #[schema(pattern = "^(intent|tokens)$")]
    response_mode: Option<String>,
}

/// Finish a login with a code
///
/// The answer is what the login was for: tokens, an intent, or `approved` for a device.
#[utoipa::path(post, path = "/api/v1/users/auth/2fa/verify", operation_id = "tfa.verify", tag = "tfa",
    request_body = VerifyInput, security(()),
    responses((status = 200, body = Success<LoginOutcome>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 409, body = Failure),
        (status = 429, body = Failure)))]
async fn verify(
    State(app): State<App>,
    headers: HeaderMap,
    origin: Origin,
    Json(input): Json<VerifyInput>,
) -> Result<Reply<LoginOutcome>, ServiceError> {
    let mut problems = BTreeMap::new();
    check_client(input.client.as_deref(), &mut problems);
    if input.code.trim().is_empty() {
        problems.insert("code".to_owned(), "is required: six digits, or a backup code".to_owned());
    }
    let in_body = input.temp_token.filter(|token| !token.is_empty());
    let temp_token = in_body.as_deref().or(caller::bearer(&headers).ok());
    if temp_token.is_none() {
        let problem = "is required, here or as Authorization: Bearer <temporary token>";
        problems.insert("temp_token".to_owned(), problem.to_owned());
    }
    let intent = wants_intent(input.response_mode.as_deref(), &mut problems);
    refuse(problems)?;
    let origin = origin.named(input.client);
    let entered = service::finish(&app, temp_token.unwrap_or_default(), &input.code, intent, &origin).await?;
    LoginOutcome::entered(&app, entered, origin.address).await
}

#[derive(Deserialize, ToSchema)]
struct ConfirmInput {
    #[schema(value_type = String, min_length = 8, max_length = 128)]
    password: Option<String>,
    #[serde(default)]
    code: String,
}

#[derive(Serialize, ToSchema)]
struct BackupCodesData {
    backup_codes: Vec<String>,
    #[serde(rename = "backupCodes")]
    backup_codes_camel: Vec<String>,
}

/// Make other backup codes, with password and code
#[utoipa::path(post, path = "/api/v1/users/auth/2fa/backup-codes/regenerate", operation_id = "tfa.regenerateBackupCodes",
    tag = "tfa", request_body = ConfirmInput,
    responses((status = 200, body = Success<BackupCodesData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 409, body = Failure), (status = 429, body = Failure)))]
async fn regenerate(
    State(app): State<App>,
    account: Account,
    origin: Origin,
    Json(input): Json<ConfirmInput>,
) -> Result<Reply<BackupCodesData>, ServiceError> {
    let mut problems = BTreeMap::new();
    let password = present_password(input.password, &mut problems);
    six_digits(&input.code, &mut problems);
    refuse(problems)?;
    let codes = service::regenerate(&app, &account.user, password, &input.code, &origin).await?;
    let data = BackupCodesData { backup_codes: codes.clone(), backup_codes_camel: codes };
    Ok(Reply::ok(data, "the former backup codes are void; keep these"))
}

#[derive(Serialize, ToSchema)]
struct DisabledData {
    sessions_revoked: bool,
    #[serde(flatten)]
    tokens: TokenData,
}

/// Turn two-factor authentication off, with password and a code or backup code
///
/// Ends every session; the answer carries new tokens.
#[utoipa::path(delete, path = "/api/v1/users/auth/2fa", operation_id = "tfa.disable", tag = "tfa",
    request_body = ConfirmInput,
    responses((status = 200, body = Success<DisabledData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 409, body = Failure), (status = 429, body = Failure)))]
async fn disable(
    State(app): State<App>,
    account: Account,
    origin: Origin,
    Json(input): Json<ConfirmInput>,
) -> Result<Reply<DisabledData>, ServiceError> {
    let mut problems = BTreeMap::new();
    let password = present_password(input.password, &mut problems);
    if input.code.trim().is_empty() {
        problems.insert("code".to_owned(), "is required: six digits, or a backup code".to_owned());
    }
    refuse(problems)?;
    let tokens = service::disable(&app, &account.user, password, &input.code, &origin).await?;
    let data = DisabledData { sessions_revoked: true, tokens: tokens.into() };
    Ok(Reply::ok(data, "two-factor authentication is off; other sessions were ended"))
}

#[derive(Deserialize, ToSchema)]
struct GateInput {
    enabled: bool,
    /// Needed to turn the gate off.
    password: Option<String>,
    /// Needed to turn the gate off.
    #[serde(alias = "code")]
    #[schema(max_length = 12)]
    otp_code: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct GateData {
    require_for_tokens: bool,
}

/// Say whether auth tokens are only made and changed with a code
#[utoipa::path(put, path = "/api/v1/users/auth/2fa/token-gate", operation_id = "tfa.setTokenGate", tag = "tfa",
    request_body = GateInput,
    responses((status = 200, body = Success<GateData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 409, body = Failure), (status = 429, body = Failure)))]
async fn token_gate(
    State(app): State<App>,
    account: Account,
    origin: Origin,
    Json(input): Json<GateInput>,
) -> Result<Reply<GateData>, ServiceError> {
    let code = input.otp_code.as_deref().filter(|code| !code.trim().is_empty());
    let password = input.password.filter(|password| !password.is_empty()).map(Into::into);
    service::set_token_gate(&app, &account.user, input.enabled, password, code, &origin).await?;
    let message = if input.enabled { "auth tokens need a code from now on" } else { "auth tokens need no code" };
    Ok(Reply::ok(GateData { require_for_tokens: input.enabled }, message))
}

/// Say whether auth tokens are only made and changed with a code
#[utoipa::path(patch, path = "/api/v1/users/auth/2fa/token-gate", operation_id = "tfa.patchTokenGate", tag = "tfa",
    request_body = GateInput,
    responses((status = 200, body = Success<GateData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 409, body = Failure), (status = 429, body = Failure)))]
async fn token_gate_patch(
    app: State<App>,
    account: Account,
    origin: Origin,
    input: Json<GateInput>,
) -> Result<Reply<GateData>, ServiceError> {
    token_gate(app, account, origin, input).await
}

fn six_digits(code: &str, problems: &mut BTreeMap<String, String>) {
    if !service::is_code(code) {
        problems.insert("code".to_owned(), "must be the six digits that the authenticator shows".to_owned());
    }
}

fn refuse(problems: BTreeMap<String, String>) -> Result<(), ServiceError> {
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}
