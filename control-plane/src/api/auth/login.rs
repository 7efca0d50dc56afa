//! Login, refresh, logout, and the account of the credential.

use super::{
    check_client,
    data::{LoginOutcome, MeData, TokenData},
    login_name, present_password, purpose,
};
use crate::{
    api::{
        basic::Me,
        caller::{self, Account},
        counted,
        envelope::{Failure, Reply, Success},
        json::Json,
    },
    app::App,
    caller::{Caller, Origin},
    error::ServiceError,
    service::{account::attempts, session as service, sign_in::Purpose},
};
use axum::{extract::State, response::Response};
use http::HeaderMap;
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use zeroize::Zeroizing;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(me_alias))
}

#[derive(Deserialize, ToSchema)]
struct LoginInput {
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
    /// What the client calls itself.
    #[schema(max_length = 64)]
    client: Option<String>,
    /// `tokens`, or `intent`: a token for `/auth/authorize`, which needs `code_challenge`.
    #[schema(pattern = "^(intent|tokens)$")]
    response_mode: Option<String>,
    /// For an intent: the SHA-256 of the application's verifier, base64url (PKCE, S256).
    code_challenge: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct RefreshInput {
    /// May be left out where the Authorization header carries it.
    #[serde(rename = "refreshToken", alias = "refresh_token")]
    #[schema(value_type = Option<String>)]
    token: Option<String>,
}

struct Checked {
    name: String,
    secret: Zeroizing<String>,
    client: Option<String>,
    purpose: Purpose,
}

impl LoginInput {
    fn check(self) -> Result<Checked, ServiceError> {
        let mut problems = BTreeMap::new();
        let name = login_name([self.username, self.alias, self.email], &mut problems);
        let secret = present_password(self.password, &mut problems);
        check_client(self.client.as_deref(), &mut problems);
        let purpose = purpose(self.response_mode.as_deref(), self.code_challenge, &mut problems);
        if problems.is_empty() {
            Ok(Checked { name, secret, client: self.client, purpose })
        } else {
            Err(ServiceError::Invalid(problems))
        }
    }
}

/// Log in
///
/// Where the account has two-factor authentication, the answer is a temporary token, to be sent with a code
/// to `/users/auth/2fa/verify`. With `response_mode` `intent` no session begins: the answer is a token that
/// `/auth/authorize` turns into a code for an application.
#[utoipa::path(post, path = "/api/v1/users/auth/login", operation_id = "authentication.login", tag = "authentication",
    request_body = LoginInput, security(()),
    responses((status = 200, body = Success<LoginOutcome>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 429, body = Failure)))]
async fn login(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<LoginInput>,
) -> Result<Response, ServiceError> {
    let Checked { name, secret, client, purpose } = input.check()?;
    let origin = origin.named(client);
    let allowance = attempts::login(&app, origin.address, &name).await?;
    let work = async {
        let login = service::login(&app, &name, secret, &purpose, &origin).await?;
        LoginOutcome::new(&app, login, origin.address).await
    };
    Ok(counted::within(allowance, work).await)
}

/// Exchange the refresh token for new tokens
///
/// Each refresh token can be used once. The token stands in the body, in the Authorization header, or in
/// both.
#[utoipa::path(post, path = "/api/v1/users/auth/refresh", operation_id = "authentication.refreshToken",
    tag = "authentication", request_body = RefreshInput, security(()),
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn refresh(
    State(app): State<App>,
    headers: HeaderMap,
    origin: Origin,
    Json(input): Json<RefreshInput>,
) -> Result<Reply<TokenData>, ServiceError> {
    let in_body = input.token.filter(|token| !token.is_empty());
    let token = match (&in_body, caller::bearer(&headers)) {
        (Some(token), _) => token,
        (None, Ok(token)) => token,
        (None, Err(_)) => {
            let problem = "is required, here or as Authorization: Bearer <refresh token>";
            return Err(ServiceError::invalid("refreshToken", problem));
        }
    };
    Ok(Reply::ok(service::refresh(&app, token, &origin).await?.into(), "tokens renewed"))
}

/// Log out: ends every token of the user
#[utoipa::path(post, path = "/api/v1/users/auth/logout", operation_id = "authentication.logout", tag = "authentication",
    responses((status = 200, body = Success<Option<String>>), (status = 401, body = Failure)))]
async fn logout(State(app): State<App>, account: Account, origin: Origin) -> Result<Reply<()>, ServiceError> {
    service::logout(&app, account.user.id, &origin).await?;
    Ok(Reply::ok((), "logged out everywhere"))
}

/// The account of the credential
///
/// Takes user name and password (`Authorization: Basic`) too, which counts as a login.
#[utoipa::path(get, path = "/api/v1/users/auth/me", operation_id = "authentication.getCurrentUser",
    tag = "authentication", responses((status = 200, body = Success<MeData>), (status = 401, body = Failure)))]
async fn me(
    State(app): State<App>,
    Me(user): Me,
    caller: Result<Caller, ServiceError>,
) -> Result<Reply<MeData>, ServiceError> {
    // With user name and password there is no credential to tell about.
    Ok(Reply::ok(MeData::of(&app, user, caller.ok()).await?, "this is you"))
}

/// The account of the credential
#[utoipa::path(get, path = "/api/v1/users/me", operation_id = "authentication.getCurrentUserAlias",
    tag = "authentication", responses((status = 200, body = Success<MeData>), (status = 401, body = Failure)))]
async fn me_alias(
    app: State<App>,
    user: Me,
    caller: Result<Caller, ServiceError>,
) -> Result<Reply<MeData>, ServiceError> {
    me(app, user, caller).await
}
