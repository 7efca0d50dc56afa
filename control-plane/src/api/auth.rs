//! `/users/auth`: login, refresh, logout and the account itself.

use super::{
    caller::{self, Account, Identity},
    client,
    envelope::{Failure, Reply, Success},
    json::Json,
    time::rfc3339,
};
use crate::{
    app::App,
    config::Secret,
    error::ServiceError,
    keys::Claims,
    rate_limit::Client,
    service::{
        password,
        session::{self as service, Tokens},
    },
    store::user::User,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderMap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
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
    /// `tokens`; `intent` is not built yet.
    response_mode: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct RefreshInput {
    /// May be left out where the Authorization header carries it.
    #[serde(rename = "refreshToken", alias = "refresh_token")]
    #[schema(value_type = Option<String>)]
    token: Option<String>,
}

/// The tokens under every name that clients know.
#[derive(Serialize, ToSchema)]
struct TokenData {
    token: String,
    #[serde(rename = "refreshToken")]
    refresh_token_camel: String,
    #[serde(rename = "accessToken")]
    access_token_camel: String,
    access_token: String,
    refresh_token: String,
    /// Seconds that the access token lives.
    expires_in: u64,
    expires_at: String,
    /// Seconds that the refresh token lives.
    refresh_expires_in: u64,
    refresh_expires_at: String,
}

impl From<Tokens> for TokenData {
    fn from(tokens: Tokens) -> Self {
        let lifetime = |claims: &Claims| claims.exp - claims.iat;
        let end = |claims: &Claims| rfc3339(claims.exp as i64 * 1000);
        Self {
            expires_in: lifetime(&tokens.access_claims),
            expires_at: end(&tokens.access_claims),
            refresh_expires_in: lifetime(&tokens.refresh_claims),
            refresh_expires_at: end(&tokens.refresh_claims),
            token: tokens.access.clone(),
            access_token_camel: tokens.access.clone(),
            access_token: tokens.access,
            refresh_token_camel: tokens.refresh.clone(),
            refresh_token: tokens.refresh,
        }
    }
}

/// An account, as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
struct UserData {
    id: String,
    username: String,
    alias: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    is_admin: bool,
    is_banned: bool,
    created_at: String,
    updated_at: String,
}

impl From<User> for UserData {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username,
            alias: user.alias,
            email: user.email,
            is_admin: user.is_admin,
            is_banned: user.is_banned,
            created_at: rfc3339(user.created_at),
            updated_at: rfc3339(user.updated_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct LoginData {
    #[serde(flatten)]
    tokens: TokenData,
    requires_2fa: bool,
    user: UserData,
}

impl LoginInput {
    /// The account named and the password.
    fn check(self) -> Result<(String, Secret), ServiceError> {
        let mut problems = BTreeMap::new();
        let name = self.username.or(self.alias).or(self.email).filter(|name| !name.trim().is_empty());
        if name.is_none() {
            problems.insert("username".to_owned(), "or email is required".to_owned());
        }
        if name.as_ref().is_some_and(|name| name.len() > 255) {
            problems.insert("username".to_owned(), "must be at most 255 characters".to_owned());
        }
        let secret = self.password.unwrap_or_default();
        // A password too short to be anybody's is not worth a hash; one too long is an attack on it.
        if !(password::MIN_CHARS..=password::MAX_CHARS).contains(&secret.chars().count()) {
            let problem = format!("must be {} to {} characters", password::MIN_CHARS, password::MAX_CHARS);
            problems.insert("password".to_owned(), problem);
        }
        match self.response_mode.as_deref() {
            None | Some("tokens" | "intent") => {}
            Some(_) => {
                problems.insert("response_mode".to_owned(), "must be tokens or intent".to_owned());
            }
        }
        match name {
            Some(name) if problems.is_empty() => Ok((name, Secret(secret.into()))),
            _ => Err(ServiceError::Invalid(problems)),
        }
    }
}

/// Log in
#[utoipa::path(post, path = "/api/v1/users/auth/login", operation_id = "authentication.login", tag = "authentication",
    request_body = LoginInput, security(()),
    responses((status = 200, body = Success<LoginData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 429, body = Failure), (status = 501, body = Failure)))]
async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    extensions: Extensions,
    Json(input): Json<LoginInput>,
) -> Result<Response, ServiceError> {
    let intent = input.response_mode.as_deref() == Some("intent");
    let (name, Secret(secret)) = input.check()?;
    if intent {
        let message = "response_mode intent is not built yet: leave it out, the answer then carries the tokens";
        return Err(ServiceError::NotImplemented(message.to_owned()));
    }
    let address = client::address(&headers, &extensions, &app.config);
    let allowance = app.limiters.login.count(Client::login(address, name.trim()));
    let outcome = match allowance.retry_after_s {
        Some(retry_after_s) => Err(ServiceError::RateLimited { retry_after_s }),
        None => service::login(&app, &name, secret).await,
    };
    let response = match outcome {
        Ok((user, tokens)) => {
            let data = LoginData { tokens: tokens.into(), requires_2fa: false, user: user.into() };
            Reply::ok(data, "logged in").into_response()
        }
        Err(error) => error.into_response(),
    };
    Ok(super::layer::with_rate_limit(response, allowance))
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
    Ok(Reply::ok(service::refresh(&app, token).await?.into(), "tokens renewed"))
}

/// Log out: ends every token of the user
#[utoipa::path(post, path = "/api/v1/users/auth/logout", operation_id = "authentication.logout", tag = "authentication",
    responses((status = 200, body = Success<Option<String>>), (status = 401, body = Failure)))]
async fn logout(State(app): State<App>, account: Account) -> Result<Reply<()>, ServiceError> {
    service::logout(&app, account.user.id).await?;
    Ok(Reply::ok((), "logged out everywhere"))
}

/// The account of the token
#[utoipa::path(get, path = "/api/v1/users/auth/me", operation_id = "authentication.getCurrentUser",
    tag = "authentication", responses((status = 200, body = Success<UserData>), (status = 401, body = Failure)))]
async fn me(identity: Identity) -> Reply<UserData> {
    Reply::ok(identity.user.into(), "this is you")
}

/// The account of the token
#[utoipa::path(get, path = "/api/v1/users/me", operation_id = "authentication.getCurrentUserAlias",
    tag = "authentication", responses((status = 200, body = Success<UserData>), (status = 401, body = Failure)))]
async fn me_alias(identity: Identity) -> Reply<UserData> {
    me(identity).await
}
