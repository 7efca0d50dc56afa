//! Auth tokens: credentials that live longer than a session and may do less.

mod secret;
mod uses;

pub use secret::Secret;
pub use uses::Uses;

use crate::{
    app::App,
    error::ServiceError,
    store::{
        auth_token::{self as store, AuthToken},
        user::User,
    },
};

/// The auth token with this value and its account; `None`: there is none.
pub async fn find(app: &App, value: &str) -> Result<Option<(AuthToken, User)>, ServiceError> {
    match Secret::parse(value) {
        Some(secret) => Ok(store::by_secret(&app.store, &secret.hash()).await?),
        None => Ok(None),
    }
}
