//! `Authorization: Basic`: user name and password in the request itself, accepted only where a client asks who
//! it is. Each such request is a login: counted, written down, and refused where the account has a second
//! factor.

use super::caller::Identity;
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{account::attempts, password, session},
    store::user::User,
};
use axum::extract::FromRequestParts;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header, request::Parts};
use zeroize::Zeroizing;

const MALFORMED: &str = "Authorization: Basic takes base64 of <user name>:<password>";

/// The account that asks who it is.
#[derive(Debug, Clone)]
pub(super) struct Me(pub(super) User);

/// Whether the request carries such credentials.
pub(super) fn is_present(headers: &HeaderMap) -> bool {
    encoded(headers).is_some()
}

/// What stands after `Basic`.
fn encoded(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (_, encoded) = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))?;
    Some(encoded.trim())
}

/// User name and password, where the request carries them.
fn credentials(headers: &HeaderMap) -> Option<Result<(String, Zeroizing<String>), ServiceError>> {
    let decoded = STANDARD.decode(encoded(headers)?).ok().map(Zeroizing::new);
    let text = decoded.and_then(|bytes| std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned())));
    let pair = text.as_ref().and_then(|text| text.split_once(':'));
    let is_possible = |secret: &str| (password::MIN_CHARS..=password::MAX_CHARS).contains(&secret.chars().count());
    Some(match pair {
        Some((name, secret)) if is_possible(secret) => Ok((name.to_owned(), Zeroizing::new(secret.to_owned()))),
        _ => Err(ServiceError::Unauthenticated(MALFORMED)),
    })
}

impl FromRequestParts<App> for Me {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        let Some(credentials) = credentials(&parts.headers) else {
            return Ok(Self(Identity::from_request_parts(parts, app).await?.user));
        };
        let (name, secret) = credentials?;
        let Ok(origin) = Origin::from_request_parts(parts, app).await;
        attempts::within(attempts::login(app, origin.address, &name).await?)?;
        Ok(Self(session::basic(app, &name, secret, &origin).await?))
    }
}
