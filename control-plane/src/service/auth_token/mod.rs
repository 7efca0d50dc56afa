//! Auth tokens: credentials that live longer than a session and may do less.
//!
//! A session manages all tokens of its account; a token manages itself and those that come from it, and can
//! only ever give what it has ([`bounds`]). Every change runs in a transaction that has locked the account's
//! tokens.

mod bounds;
mod expiry;
mod input;
mod profile;
mod secret;
mod uses;
mod write;

pub use input::Input;
pub use profile::{public_profile, update_profile};
pub use secret::Secret;
pub use uses::Uses;
pub use write::{Realm, change_realm, copy, create, delete, update};

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        auth_token::{self as store, AuthToken},
        user::User,
    },
};
use hoody_protocol::id::AuthTokenId;

const TOKEN: &str = "auth token";

/// The auth token with this value and its account; `None`: there is none.
pub async fn find(app: &App, value: &str) -> Result<Option<(AuthToken, User)>, ServiceError> {
    match Secret::parse(value) {
        Some(secret) => Ok(store::by_secret(&app.store, &secret.hash()).await?),
        None => Ok(None),
    }
}

/// The tokens that the caller manages, oldest first.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<AuthToken>, ServiceError> {
    let all = store::list(&app.store, caller.user).await?;
    Ok(all.iter().filter(|token| manages(caller, &all, token)).cloned().collect())
}

/// A token that the caller manages.
pub async fn get(app: &App, caller: &Caller, id: AuthTokenId) -> Result<AuthToken, ServiceError> {
    let all = store::list(&app.store, caller.user).await?;
    managed(caller, &all, id).cloned()
}

fn manages(caller: &Caller, all: &[AuthToken], token: &AuthToken) -> bool {
    caller.token.as_ref().is_none_or(|own| bounds::descends(all, token, own))
}

fn managed<'a>(caller: &Caller, all: &'a [AuthToken], id: AuthTokenId) -> Result<&'a AuthToken, ServiceError> {
    let found = all.iter().find(|token| token.id == id).filter(|token| manages(caller, all, token));
    found.ok_or(ServiceError::NotFound(TOKEN))
}
