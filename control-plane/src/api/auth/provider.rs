//! Signing in with GitHub and Google: out to the provider's page, and back.

use super::check_client;
use crate::{
    api::{
        device_page,
        envelope::{Failure, Reply, Success},
        query::Query,
    },
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::attempts,
        sign_in::{
            Provider,
            flow::{self, Answer, Application, Arrival, Departure},
        },
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(config))
        .routes(routes!(github))
        .routes(routes!(github_callback))
        .routes(routes!(google))
        .routes(routes!(google_callback))
}

#[derive(Serialize, ToSchema)]
struct Enabled {
    enabled: bool,
}

/// The ways to sign in here.
#[derive(Serialize, ToSchema)]
struct ConfigData {
    password: Enabled,
    github: Enabled,
    google: Enabled,
    device: Enabled,
    /// Where people type the code of a device.
    verification_uri: String,
}

/// The ways to sign in
#[utoipa::path(get, path = "/api/v1/auth/config", operation_id = "authentication.getOAuthConfig",
    tag = "authentication", security(()), responses((status = 200, body = Success<ConfigData>)))]
async fn config(State(app): State<App>) -> Reply<ConfigData> {
    let oauth = &app.config.oauth;
    let data = ConfigData {
        password: Enabled { enabled: true },
        github: Enabled { enabled: oauth.github.is_some() },
        google: Enabled { enabled: oauth.google.is_some() },
        device: Enabled { enabled: true },
        verification_uri: device_page::url(&app),
    };
    Reply::ok(data, "these are the ways to sign in")
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Departing {
    /// Where the code goes; one that the operator lists.
    #[param(required = true)]
    #[serde(default)]
    redirect_uri: String,
    /// The SHA-256 of the application's verifier, base64url (PKCE, S256).
    #[param(required = true)]
    #[serde(default)]
    code_challenge: String,
    /// What the client calls itself.
    client: Option<String>,
    /// Opens the free tier for a new account.
    invite_code: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct GithubIntent {
    /// `login`, or `star_check`: signs in as well, and asks GitHub whether they starred the operator's repository.
    /// The application gets `starred` (`true` or `false`) beside the code; who starred it needs no invite code for
    /// the free tier.
    #[param(pattern = "^(login|star_check)$")]
    intent: Option<String>,
}

async fn depart(
    app: &App,
    provider: Provider,
    input: Departing,
    star_check: bool,
    origin: &Origin,
) -> Result<Response, ServiceError> {
    let mut problems = BTreeMap::new();
    check_client(input.client.as_deref(), &mut problems);
    let Departing { redirect_uri, code_challenge, client, invite_code } = input;
    let application = Application::check(app, redirect_uri, code_challenge, None, invite_code, problems)?;
    let application = if star_check { application.checking_star(app)? } else { application };
    attempts::provider(app, origin.address).await?;
    Ok(leave(app, flow::begin(app, provider, application, client).await?))
}

/// Sends the browser off, with the cookie by which it is known again.
pub(super) fn leave(app: &App, departure: Departure) -> Response {
    let Departure { url, cookie, secret } = departure;
    let value = secret.as_str();
    let cookie = set_cookie(app, &cookie, value, flow::LIFETIME.as_secs());
    ([(header::SET_COOKIE, cookie)], redirect(&url)).into_response()
}

fn set_cookie(app: &App, name: &str, value: &str, seconds: u64) -> String {
    // Lax: the provider's page sends the browser back by a link, which a strict cookie would not follow.
    let secure = if app.config.public_url.starts_with("https://") { "; Secure" } else { "" };
    format!("{name}={value}; Path=/api/v1/auth; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

fn redirect(url: &str) -> Response {
    let Ok(location) = HeaderValue::try_from(url) else {
        return crate::api::envelope::internal();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::FOUND, headers).into_response()
}

/// Sign in with GitHub
///
/// Sends the browser to GitHub, and from there to `redirect_uri` with a `code` for `/auth/exchange`, or with
/// `error` and `error_description`.
#[utoipa::path(get, path = "/api/v1/auth/github", operation_id = "authentication.githubOAuthRedirect",
    tag = "authentication", params(Departing, GithubIntent), security(()),
    responses((status = 302, description = "to GitHub"), (status = 400, body = Failure), (status = 429, body = Failure),
        (status = 503, body = Failure)))]
async fn github(
    State(app): State<App>,
    origin: Origin,
    Query(input): Query<Departing>,
    Query(GithubIntent { intent }): Query<GithubIntent>,
) -> Result<Response, ServiceError> {
    match intent.as_deref() {
        None | Some("login") => depart(&app, Provider::Github, input, false, &origin).await,
        Some("star_check") => depart(&app, Provider::Github, input, true, &origin).await,
        Some(_) => Err(ServiceError::invalid("intent", "must be login or star_check")),
    }
}

/// Sign in with Google
///
/// Sends the browser to Google, and from there to `redirect_uri` with a `code` for `/auth/exchange`, or with
/// `error` and `error_description`.
#[utoipa::path(get, path = "/api/v1/auth/google", operation_id = "authentication.googleOAuthRedirect",
    tag = "authentication", params(Departing), security(()),
    responses((status = 302, description = "to Google"), (status = 400, body = Failure), (status = 429, body = Failure),
        (status = 503, body = Failure)))]
async fn google(
    State(app): State<App>,
    origin: Origin,
    Query(input): Query<Departing>,
) -> Result<Response, ServiceError> {
    depart(&app, Provider::Google, input, false, &origin).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Arriving {
    /// What the browser was sent out with.
    #[param(required = true)]
    #[serde(default)]
    state: String,
    /// The provider's code.
    code: Option<String>,
    /// Or why there is none.
    error: Option<String>,
    /// The provider's words for it.
    #[serde(rename = "error_description")]
    _error_description: Option<String>,
    /// A page about it.
    #[serde(rename = "error_uri")]
    _error_uri: Option<String>,
}

async fn arrive(
    app: &App,
    provider: Provider,
    origin: &Origin,
    headers: &HeaderMap,
    input: Arriving,
) -> Result<Response, ServiceError> {
    attempts::provider(app, origin.address).await?;
    let cookie = flow::cookie(&input.state);
    let answer = Answer {
        state: &input.state,
        secret: cookie_value(headers, &cookie),
        code: input.code.filter(|code| !code.is_empty()),
        error: input.error,
    };
    let response = match flow::finish(app, provider, answer, origin).await? {
        Arrival::Application(url) => redirect(&url),
        // What the page must know stands behind the #, which no server and no log gets to see.
        Arrival::DeviceApproved => redirect(&device_page::with_outcome(app, &[("outcome", "approved")])),
        Arrival::DeviceNeedsCode(challenge) => {
            redirect(&device_page::with_outcome(app, &[("temp_token", challenge.temp_token.as_str())]))
        }
        Arrival::DeviceRefused(why) => redirect(&device_page::with_outcome(app, &[("problem", &why)])),
    };
    Ok(([(header::SET_COOKIE, set_cookie(app, &cookie, "", 0))], response).into_response())
}

fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// Back from GitHub
#[utoipa::path(get, path = "/api/v1/auth/github/callback", operation_id = "authentication.githubOAuthCallback",
    tag = "authentication", params(Arriving), security(()),
    responses((status = 302, description = "to the application, or to the page for devices"),
        (status = 400, body = Failure), (status = 409, body = Failure), (status = 429, body = Failure),
        (status = 503, body = Failure)))]
async fn github_callback(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Query(input): Query<Arriving>,
) -> Result<Response, ServiceError> {
    arrive(&app, Provider::Github, &origin, &headers, input).await
}

/// Back from Google
#[utoipa::path(get, path = "/api/v1/auth/google/callback", operation_id = "authentication.googleOAuthCallback",
    tag = "authentication", params(Arriving), security(()),
    responses((status = 302, description = "to the application, or to the page for devices"),
        (status = 400, body = Failure), (status = 409, body = Failure), (status = 429, body = Failure),
        (status = 503, body = Failure)))]
async fn google_callback(
    State(app): State<App>,
    origin: Origin,
    headers: HeaderMap,
    Query(input): Query<Arriving>,
) -> Result<Response, ServiceError> {
    arrive(&app, Provider::Google, &origin, &headers, input).await
}
