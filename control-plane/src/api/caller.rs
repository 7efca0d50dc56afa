//! Who calls. The token was verified once, by [`layer`], for every handler and middleware of the
//! request; [`Caller`] then reads the account, which ends tokens of banned or logged-out users.

pub use crate::caller::Caller;

use crate::{
    app::App,
    error::ServiceError,
    keys::{Claims, TokenError, TokenKind},
    store::user::{self, User},
};
use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, header, request::Parts};

/// How credentials of auth tokens begin.
const AUTH_TOKEN_PREFIX: &str = "hdy_";

const NO_CREDENTIAL: &str = "no credential: log in and send the token as Authorization: Bearer <token>";
const MALFORMED: &str = "the Authorization header must be Bearer <token>";
const AUTH_TOKEN: &str = "this auth token is not known: log in and use the token from the answer";
const INVALID: &str = "the token is not valid: log in again";
const EXPIRED: &str = "the token has expired: refresh it or log in again";
const ENDED: &str = "the session of this token has ended: log in again";
const BANNED: &str = "this account is banned";

/// The token's claims, or why there are none; in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Credential(pub(super) Result<Claims, &'static str>);

/// The caller with the whole account row and the token's claims, for the endpoints about the account.
#[derive(Debug, Clone)]
pub struct Account {
    /// The account.
    pub user: User,
    /// The token.
    pub claims: Claims,
}

/// The text after `Bearer`, or why there is none.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, &'static str> {
    let value = headers.get(header::AUTHORIZATION).ok_or(NO_CREDENTIAL)?.to_str().map_err(|_| MALFORMED)?.trim();
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        None if value.starts_with(AUTH_TOKEN_PREFIX) => Ok(value),
        _ => Err(MALFORMED),
    }
}

fn verify(app: &App, headers: &HeaderMap) -> Result<Claims, &'static str> {
    let token = bearer(headers)?;
    if token.starts_with(AUTH_TOKEN_PREFIX) {
        return Err(AUTH_TOKEN);
    }
    app.keys.tokens.verify(token, TokenKind::Access).map_err(|error| match error {
        TokenError::Expired => EXPIRED,
        TokenError::Invalid => INVALID,
    })
}

/// Middleware: verifies the request's token.
pub(super) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let credential = Credential(verify(&app, request.headers()));
    request.extensions_mut().insert(credential);
    next.run(request).await
}

impl FromRequestParts<App> for Account {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        if let Some(account) = parts.extensions.get::<Self>() {
            return Ok(account.clone());
        }
        let credential = match parts.extensions.get::<Credential>() {
            Some(Credential(credential)) => credential.clone(),
            None => verify(app, &parts.headers),
        };
        let claims = credential.map_err(ServiceError::Unauthenticated)?;
        let found = user::by_session(&app.store, claims.sub, claims.sid).await?;
        let user = found.ok_or(ServiceError::Unauthenticated(ENDED))?;
        if user.token_generation != claims.generation {
            return Err(ServiceError::Unauthenticated(ENDED));
        }
        if user.is_banned {
            return Err(ServiceError::Forbidden(BANNED.to_owned()));
        }
        let account = Self { user, claims };
        parts.extensions.insert(account.clone());
        Ok(account)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        let Account { user, .. } = Account::from_request_parts(parts, app).await?;
        let realm = super::realm::of_request(parts, &app.config)?;
        Ok(Self { user: user.id, is_admin: user.is_admin, username: user.username, realm })
    }
}
