//! Two-factor authentication: six digits that an authenticator makes from a shared secret and the time (TOTP,
//! RFC 6238), or one of ten backup codes. Turning it on or off ends every other session. Each code works once;
//! whoever tries is counted, in the database.

mod code;
mod login;
mod qr;
mod setup;

pub use code::{confirm, is_code};
pub use login::{Challenge, challenge, finish};
pub use setup::{Setup, disable, regenerate, set_up, verify_setup};

use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::history::{self, Happening},
        session,
    },
    store::{StoreError, two_factor as store, user::User},
};
use hoody_protocol::id::UserId;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const NOT_ENABLED: &str = "two-factor authentication is not enabled: set it up first";

/// What an account has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// A secret was made; it may not be in force yet.
    pub set_up: bool,
    /// Since when it is in force, milliseconds.
    pub enabled_at: Option<i64>,
    /// Backup codes that are left.
    pub backup_codes: i64,
    /// Auth tokens are only made and changed with a code.
    pub require_for_tokens: bool,
}

/// What the account has.
pub async fn status(app: &App, user: UserId) -> Result<Status, ServiceError> {
    let row = store::get(&app.store, user).await?;
    let enabled_at = row.as_ref().and_then(|row| row.enabled_at);
    // Codes of a setup that was not finished are nobody's.
    let backup_codes = if enabled_at.is_some() { store::backup_codes(&app.store, user).await? } else { 0 };
    Ok(Status {
        set_up: row.is_some(),
        enabled_at,
        backup_codes,
        require_for_tokens: row.is_some_and(|row| row.require_for_tokens != 0),
    })
}

/// Whether the account's logins need a code.
pub async fn is_enabled(app: &App, user: UserId) -> Result<bool, ServiceError> {
    Ok(store::get(&app.store, user).await?.is_some_and(|row| row.enabled_at.is_some()))
}

/// The account's second factor that is in force.
async fn in_force(app: &App, user: UserId) -> Result<store::Row, ServiceError> {
    let row = store::get(&app.store, user).await?.filter(|row| row.enabled_at.is_some());
    row.ok_or_else(|| ServiceError::Conflict(NOT_ENABLED.to_owned()))
}

/// Sets whether auth tokens are only made and changed with a code. Turning it off takes password and code.
pub async fn set_token_gate(
    app: &App,
    user: &User,
    enabled: bool,
    password: Option<Zeroizing<String>>,
    code: Option<&str>,
    origin: &Origin,
) -> Result<(), ServiceError> {
    in_force(app, user.id).await?;
    let happening = if enabled {
        Happening::GateOn
    } else {
        let mut problems = BTreeMap::new();
        for (field, is_missing) in [("password", password.is_none()), ("otp_code", code.is_none())] {
            if is_missing {
                problems.insert(field.to_owned(), "is required to turn the gate off".to_owned());
            }
        }
        let (Some(password), Some(code)) = (password, code) else { return Err(ServiceError::Invalid(problems)) };
        session::confirm_password(app, user.id, password).await?;
        confirm(app, user.id, "otp_code", code, origin).await?;
        Happening::GateOff
    };
    let mut tx = app.store.begin().await?;
    if !store::set_token_gate(&mut tx, user.id, enabled).await? {
        return Err(ServiceError::Conflict(NOT_ENABLED.to_owned()));
    }
    history::record(&mut tx, user.id, happening, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Where the account's gate is on, demands a code before an auth token is made or changed.
pub async fn pass_token_gate(app: &App, user: UserId, code: Option<&str>, origin: &Origin) -> Result<(), ServiceError> {
    if !status(app, user).await?.require_for_tokens {
        return Ok(());
    }
    match code {
        Some(code) => confirm(app, user, "otp_code", code, origin).await,
        None => Err(ServiceError::invalid("otp_code", "is required: this account's auth tokens are gated")),
    }
}
