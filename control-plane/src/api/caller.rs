//! Who calls. [`layer`] looks at the credential once, for every layer and handler of the request: a session's
//! token by its signature, an auth token by one read that brings its account and permissions along.
//! [`Identity`] then is the account behind it; for a session that is the one read, which ends tokens of
//! banned or logged-out users. Nothing is kept between requests, so every change holds from the next one on.

pub use crate::caller::Caller;

use super::client;
use crate::{
    access::Permission,
    app::App,
    error::ServiceError,
    keys::{Claims, TokenError, TokenKind},
    service::auth_token::{self, Secret},
    store::{
        auth_token::AuthToken,
        user::{self, User},
    },
};
use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hoody_protocol::{
    id::{RealmId, UserId},
    time::now_ms,
};
use http::{HeaderMap, header, request::Parts};
use std::sync::Arc;

/// How a subprotocol begins that carries a token.
const SUBPROTOCOL_TOKEN: &str = "bearer.";

const NO_CREDENTIAL: &str = "no credential: log in and send the token as Authorization: Bearer <token>";
const MALFORMED: &str = "the Authorization header must be Bearer <token>";
const UNKNOWN_AUTH_TOKEN: &str = "this auth token is not known: make another, or log in";
const EXPIRED_AUTH_TOKEN: &str = "this auth token has expired: extend it or make another";
const DISABLED_AUTH_TOKEN: &str = "this auth token, or the one it was made with, is disabled: enable it";
const INVALID: &str = "the token is not valid: log in again";
const EXPIRED: &str = "the token has expired: refresh it or log in again";
const ENDED: &str = "the session of this token has ended: log in again";
const BANNED: &str = "this account is banned";
const ELSEWHERE: &str = "this auth token may not be used from your address";
const OTHER_REALM: &str = "this auth token is not for this realm: send the request to one of its realms";
const NEEDS_REALM: &str = "this auth token is only for realms: send the request to <realm id>.<API host>";

/// What the request carries: who it says it is, proven.
#[derive(Debug, Clone)]
pub(super) enum Presented {
    /// A session's access token. Whether the session still is there, only the database knows.
    Session(Claims),
    /// An auth token.
    Token(Arc<(AuthToken, User)>),
}

impl Presented {
    /// Whom it names.
    pub(super) fn user(&self) -> UserId {
        match self {
            Self::Session(claims) => claims.sub,
            Self::Token(found) => found.1.id,
        }
    }
}

/// The credential, or why there is none; in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Credential(pub(super) Result<Presented, &'static str>);

/// The account that calls, with what its credential is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The account.
    pub user: User,
    credential: Presented,
}

/// The account of a session with the token's claims, for the endpoints about the account. Auth tokens are
/// refused.
#[derive(Debug, Clone)]
pub struct Account {
    /// The account.
    pub user: User,
    /// The token.
    pub claims: Claims,
}

/// The text after `Bearer`, or why there is none.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, &'static str> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return subprotocol_token(headers).ok_or(NO_CREDENTIAL);
    };
    let value = value.to_str().map_err(|_| MALFORMED)?.trim();
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        None if value.starts_with(Secret::PREFIX) => Ok(value),
        _ => Err(MALFORMED),
    }
}

/// The token that a WebSocket client offers as a subprotocol: a browser can set no header.
fn subprotocol_token(headers: &HeaderMap) -> Option<&str> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return None;
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|list| list.split(',')).find_map(|name| name.trim().strip_prefix(SUBPROTOCOL_TOKEN))
}

async fn present(app: &App, headers: &HeaderMap) -> Result<Credential, ServiceError> {
    let token = match bearer(headers) {
        Ok(token) => token,
        Err(reason) => return Ok(Credential(Err(reason))),
    };
    if token.starts_with(Secret::PREFIX) {
        let found = auth_token::find(app, token).await?;
        return Ok(Credential(found.map(|found| Presented::Token(Arc::new(found))).ok_or(UNKNOWN_AUTH_TOKEN)));
    }
    let verified = app.keys.tokens.verify(token, TokenKind::Access).map_err(|error| match error {
        TokenError::Expired => EXPIRED,
        TokenError::Invalid => INVALID,
    });
    Ok(Credential(verified.map(Presented::Session)))
}

/// Middleware: looks at the request's credential.
pub(super) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match present(&app, request.headers()).await {
        Ok(credential) => {
            request.extensions_mut().insert(credential);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

impl FromRequestParts<App> for Identity {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        if let Some(identity) = parts.extensions.get::<Self>() {
            return Ok(identity.clone());
        }
        let presented = match parts.extensions.get::<Credential>() {
            Some(credential) => credential.clone(),
            None => present(app, &parts.headers).await?,
        };
        let credential = presented.0.map_err(ServiceError::Unauthenticated)?;
        let identity = match &credential {
            Presented::Session(claims) => {
                let found = user::by_session(&app.store, claims.sub, claims.sid).await?;
                let user = found.ok_or(ServiceError::Unauthenticated(ENDED))?;
                if user.token_generation != claims.generation {
                    return Err(ServiceError::Unauthenticated(ENDED));
                }
                check_ban(&user)?;
                Self { user, credential }
            }
            Presented::Token(found) => {
                let (token, user) = found.as_ref();
                check_token(token)?;
                check_ban(user)?;
                check_address(app, parts, token)?;
                Self { user: user.clone(), credential }
            }
        };
        parts.extensions.insert(identity.clone());
        Ok(identity)
    }
}

fn check_ban(user: &User) -> Result<(), ServiceError> {
    if user.is_banned { Err(ServiceError::Forbidden(BANNED.to_owned())) } else { Ok(()) }
}

fn check_token(token: &AuthToken) -> Result<(), ServiceError> {
    if token.has_expired(now_ms() as i64) {
        return Err(ServiceError::Unauthenticated(EXPIRED_AUTH_TOKEN));
    }
    if !token.is_active() {
        return Err(ServiceError::Unauthenticated(DISABLED_AUTH_TOKEN));
    }
    Ok(())
}

fn check_address(app: &App, parts: &Parts, token: &AuthToken) -> Result<(), ServiceError> {
    let address = client::address(&parts.headers, &parts.extensions, &app.config);
    if !token.networks.is_empty() && !token.networks.iter().any(|network| network.contains(&address)) {
        return Err(ServiceError::Forbidden(ELSEWHERE.to_owned()));
    }
    app.token_uses.note(token.id, address);
    Ok(())
}

fn check_realm(token: &AuthToken, realm: Option<RealmId>) -> Result<(), ServiceError> {
    let problem = match realm {
        Some(realm) if !token.realms.is_empty() && !token.realms.contains(&realm) => OTHER_REALM,
        None if !token.allow_no_realm => NEEDS_REALM,
        _ => return Ok(()),
    };
    Err(ServiceError::Forbidden(problem.to_owned()))
}

impl FromRequestParts<App> for Account {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        let Identity { user, credential } = Identity::from_request_parts(parts, app).await?;
        match credential {
            Presented::Session(claims) => Ok(Self { user, claims }),
            Presented::Token(_) => Err(super::layer::access::for_sessions()),
        }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let Identity { user, credential } = Identity::from_request_parts(parts, app).await?;
        let realm = super::realm::of_request(parts, &app.config)?;
        let token = match credential {
            Presented::Session(_) => None,
            Presented::Token(found) => {
                check_realm(&found.0, realm)?;
                Some(Arc::new(found.0.clone()))
            }
        };
        let may_operate = token.as_ref().is_none_or(|token| token.permissions.has(Permission::AdminSystem));
        let is_admin = user.is_admin && may_operate;
        let caller = Self { user: user.id, is_admin, username: user.username, realm, token };
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}
