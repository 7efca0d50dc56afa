//! Signing in with a provider in another window: the application asks for an address, opens it there, and gets
//! the code at its own `redirect_uri`, with the `state_id` that it chose.

use super::{check_client, intent::check_token, provider::leave};
use crate::{
    api::{
        envelope::{Failure, Reply, Success},
        json::Json,
        query::Query,
    },
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::attempts,
        sign_in::{
            Provider,
            flow::{self, Application},
        },
    },
};
use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(initiate)).routes(routes!(start))
}

/// `github` or `google`.
pub(super) fn provider(word: &str, problems: &mut BTreeMap<String, String>) -> Option<Provider> {
    match word {
        "github" => Some(Provider::Github),
        "google" => Some(Provider::Google),
        _ => {
            problems.insert("provider".to_owned(), "must be github or google".to_owned());
            None
        }
    }
}

#[derive(Deserialize, ToSchema)]
struct LaunchInput {
    #[schema(pattern = "^(github|google)$")]
    #[serde(default)]
    provider: String,
    /// The SHA-256 of the application's verifier, base64url (PKCE, S256).
    #[schema(min_length = 43, max_length = 43, pattern = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
    #[serde(default)]
    code_challenge: String,
    /// A random UUID (version 4), by which the application knows its window again: it comes back as `state`.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    #[serde(default)]
    state_id: String,
    /// Where the code goes; the first one that the operator lists where this is left out.
    #[schema(max_length = 2048)]
    redirect_uri: Option<String>,
    /// What the client calls itself.
    #[schema(max_length = 64)]
    client: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct LaunchData {
    /// Open this in the other window within a minute.
    launch_url: String,
}

fn is_uuid_4(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            14 => *byte == b'4',
            19 => b"89ab".contains(byte),
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        })
}

/// An address for another window
#[utoipa::path(post, path = "/api/v1/auth/launch/initiate", operation_id = "authentication.oauthLaunchInitiate",
    tag = "authentication", request_body = LaunchInput, security(()),
    responses((status = 200, body = Success<LaunchData>), (status = 400, body = Failure), (status = 429, body = Failure),
        (status = 503, body = Failure)))]
async fn initiate(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<LaunchInput>,
) -> Result<Reply<LaunchData>, ServiceError> {
    let mut problems = BTreeMap::new();
    check_client(input.client.as_deref(), &mut problems);
    let provider = provider(&input.provider, &mut problems);
    if !is_uuid_4(&input.state_id) {
        problems.insert("state_id".to_owned(), "must be a random UUID (version 4), lower case".to_owned());
    }
    let listed = || app.config.oauth.redirect_uris.first().cloned().unwrap_or_default();
    let redirect_uri = input.redirect_uri.unwrap_or_else(listed);
    let application =
        Application::check(&app, redirect_uri, input.code_challenge, Some(input.state_id), None, problems)?;
    let Some(provider) = provider else { return Err(ServiceError::invalid("provider", "must be github or google")) };
    attempts::provider(&app, origin.address).await?;
    let ticket = flow::launch(&app, provider, application, input.client).await?;
    let base = app.config.public_url.trim_end_matches('/');
    let launch_url = format!("{base}/api/v1/auth/launch/start?ticket={}", ticket.as_str());
    Ok(Reply::ok(LaunchData { launch_url }, "open launch_url in another window"))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Ticket {
    /// From `/auth/launch/initiate`.
    #[param(required = true)]
    #[serde(default)]
    ticket: String,
}

/// Begin in the other window
#[utoipa::path(get, path = "/api/v1/auth/launch/start", operation_id = "authentication.oauthLaunchStart",
    tag = "authentication", params(Ticket), security(()),
    responses((status = 302, description = "to the provider"), (status = 400, body = Failure),
        (status = 429, body = Failure), (status = 503, body = Failure)))]
async fn start(
    State(app): State<App>,
    origin: Origin,
    Query(Ticket { ticket }): Query<Ticket>,
) -> Result<Response, ServiceError> {
    let mut problems = BTreeMap::new();
    check_token("ticket", &ticket, &mut problems);
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    attempts::provider(&app, origin.address).await?;
    Ok(leave(&app, flow::start_launch(&app, &ticket).await?))
}
