//! Handing a login over to an application: intent → code → session.

use super::data::LoginOutcome;
use crate::{
    api::{
        caller::{Account, bearer},
        envelope::{Failure, Reply, Success},
        json::Json,
    },
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::attempts,
        one_time,
        sign_in::{self, flow, intent as service, intent::Holder},
    },
};
use axum::extract::{FromRequestParts, State};
use http::request::Parts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

const NO_CREDENTIAL: &str = "no credential: send the intent or a session's token as Authorization: Bearer <token>";
/// Bytes of the longest address of an application.
const MAX_URI_BYTES: usize = 2048;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(authorize)).routes(routes!(exchange)).routes(routes!(cancel))
}

/// What names a login: an intent's token, or else a session.
#[derive(Debug)]
enum Presented {
    Intent(String),
    Session(Box<Account>),
}

fn intent_token(parts: &Parts) -> Option<&str> {
    // A session's token has dots in it, an auth token its prefix.
    let is_intent = |token: &&str| token.len() == one_time::CHARS && token.bytes().all(|b| b.is_ascii_hexdigit());
    bearer(&parts.headers).ok().filter(is_intent)
}

impl FromRequestParts<App> for Presented {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        if let Some(token) = intent_token(parts) {
            return Ok(Self::Intent(token.to_owned()));
        }
        Ok(Self::Session(Box::new(Account::from_request_parts(parts, app).await?)))
    }
}

/// An intent's token.
#[derive(Debug)]
struct Intent(String);

impl FromRequestParts<App> for Intent {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ServiceError> {
        let token = intent_token(parts).ok_or(ServiceError::Unauthenticated(NO_CREDENTIAL))?;
        Ok(Self(token.to_owned()))
    }
}

#[derive(Deserialize, ToSchema)]
struct AuthorizeInput {
    /// The SHA-256 of the application's verifier, base64url (PKCE, S256).
    #[schema(min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
    #[serde(default)]
    code_challenge: String,
    /// Where the code goes; one that the operator lists.
    #[schema(min_length = 1, max_length = 2048, pattern = "^https://")]
    #[serde(default)]
    redirect_uri: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = IntentCodeData)]
struct CodeData {
    /// For `/auth/exchange`; works once.
    code: String,
    redirect_uri: String,
    /// The same with the code: send the browser there.
    redirect_url: String,
    /// Seconds that the code is valid.
    expires_in: u64,
}

/// A code for an application
///
/// With an intent (`Authorization: Bearer <auth_intent_token>`), which is used up, or with a session.
#[utoipa::path(post, path = "/api/v1/auth/authorize", operation_id = "authentication.oauthAuthorize",
    tag = "authentication", request_body = AuthorizeInput,
    responses((status = 200, body = Success<CodeData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 429, body = Failure)))]
async fn authorize(
    State(app): State<App>,
    origin: Origin,
    presented: Presented,
    Json(input): Json<AuthorizeInput>,
) -> Result<Reply<CodeData>, ServiceError> {
    attempts::provider(&app, origin.address).await?;
    let holder = match &presented {
        Presented::Intent(token) => Holder::Intent(token),
        Presented::Session(account) => Holder::Session(Box::new(account.user.clone())),
    };
    let code = service::authorize(&app, holder, &input.code_challenge, &input.redirect_uri).await?;
    let data = CodeData {
        redirect_url: flow::with_code(&input.redirect_uri, &code)?,
        code: code.to_string(),
        redirect_uri: input.redirect_uri,
        expires_in: service::CODE_LIFETIME.as_secs(),
    };
    Ok(Reply::ok(data, "send the browser to redirect_url"))
}

#[derive(Deserialize, ToSchema)]
struct ExchangeInput {
    /// From the redirect.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    #[serde(default)]
    code: String,
    /// What the challenge was made of.
    #[schema(min_length = 43, max_length = 128, pattern = "^[A-Za-z0-9_\\-.~]+$")]
    #[serde(default)]
    code_verifier: String,
    /// The one that the code was sent to.
    #[schema(min_length = 1, max_length = 2048, pattern = "^https://")]
    #[serde(default)]
    redirect_uri: String,
}

/// Exchange a code for a session
///
/// A code works once, also when the verifier is wrong. Where the account has two-factor authentication and no
/// code of it was shown yet, the answer is a temporary token for `/users/auth/2fa/verify`.
#[utoipa::path(post, path = "/api/v1/auth/exchange", operation_id = "authentication.oauthExchange",
    tag = "authentication", request_body = ExchangeInput, security(()),
    responses((status = 200, body = Success<LoginOutcome>), (status = 400, body = Failure),
        (status = 403, body = Failure), (status = 429, body = Failure)))]
async fn exchange(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<ExchangeInput>,
) -> Result<Reply<LoginOutcome>, ServiceError> {
    let mut problems = BTreeMap::new();
    check_token("code", &input.code, &mut problems);
    sign_in::check_verifier(&input.code_verifier, &mut problems);
    if !(1..=MAX_URI_BYTES).contains(&input.redirect_uri.len()) {
        problems.insert("redirect_uri".to_owned(), "is required: the address that the code was sent to".to_owned());
    }
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    attempts::provider(&app, origin.address).await?;
    let login = service::exchange(&app, &input.code, &input.code_verifier, &input.redirect_uri, &origin).await?;
    LoginOutcome::new(&app, login, origin.address).await
}

/// Checks the form of what was given out as 64 hexadecimal characters.
pub(super) fn check_token(field: &str, token: &str, problems: &mut BTreeMap<String, String>) {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if token.len() != one_time::CHARS || !token.bytes().all(is_hex) {
        problems.insert(field.to_owned(), format!("must be {} lower-case hexadecimal characters", one_time::CHARS));
    }
}

/// Give up an intent
///
/// With `Authorization: Bearer <auth_intent_token>`. One that is over already is no error.
#[utoipa::path(post, path = "/api/v1/auth/intent/cancel", operation_id = "authentication.oauthCancelIntent",
    tag = "authentication", responses((status = 200, body = Success<Option<String>>), (status = 401, body = Failure)))]
async fn cancel(State(app): State<App>, intent: Intent) -> Result<Reply<()>, ServiceError> {
    service::cancel(&app, &intent.0).await?;
    Ok(Reply::ok((), "the intent is void"))
}
