//! Turning two-factor authentication on and off.

use super::code::{self, confirm};
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::{
            attempts,
            history::{self, Happening},
        },
        session::{self, Tokens},
        two_factor::{in_force, qr},
    },
    store::{StoreError, two_factor as store, user::User},
};
use hoody_protocol::time::now_ms;
use zeroize::Zeroizing;

const ENABLED: &str = "two-factor authentication is already enabled: disable it first";
const WRONG: &str = "the code is wrong: set the device's clock, and type the code that the authenticator shows now";

/// What a new authenticator needs; shown once.
pub struct Setup {
    /// The secret as a QR code, PNG in a data URL.
    pub qr_code: String,
    /// The secret for typing, base32.
    pub secret: String,
    /// Each can be used once in place of a code.
    pub backup_codes: Vec<String>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Setup")
    }
}

/// Makes a secret and backup codes. They are in force once a code was shown ([`verify_setup`]).
pub async fn set_up(app: &App, user: &User, password: Zeroizing<String>) -> Result<Setup, ServiceError> {
    session::confirm_password(app, user.id, password).await?;
    let secret = code::new_secret();
    let generator = code::generator(&secret, user.email.as_deref().unwrap_or(&user.username))?;
    let url = Zeroizing::new(generator.to_url().map_err(ServiceError::internal)?);
    let qr_code = qr::data_url(&url).map_err(ServiceError::Internal)?;
    let (backup_codes, hashes) = code::backup_codes(user.id);
    let mut tx = app.store.begin().await?;
    if !store::set_up(&mut tx, user.id, &code::seal(app, user.id, &secret)).await? {
        return Err(ServiceError::Conflict(ENABLED.to_owned()));
    }
    store::replace_backup_codes(&mut tx, user.id, &hashes).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Setup { qr_code, secret: generator.secret().to_base32(), backup_codes })
}

/// Puts the secret in force, with a code that shows that the authenticator has it. Ends every other session;
/// gives when it came in force (milliseconds) and new tokens.
pub async fn verify_setup(app: &App, user: &User, code: &str, origin: &Origin) -> Result<(i64, Tokens), ServiceError> {
    attempts::code(app, user.id).await?;
    let row = store::get(&app.store, user.id).await?;
    let row = row.ok_or_else(|| ServiceError::Conflict("two-factor authentication is not set up yet".to_owned()))?;
    if row.enabled_at.is_some() {
        return Err(ServiceError::Conflict(ENABLED.to_owned()));
    }
    let step = code::step_of(app, user.id, &row.sealed, code)?.ok_or(ServiceError::Unauthenticated(WRONG))?;
    let now = now_ms() as i64;
    let mut tx = app.store.begin().await?;
    if !store::use_step(&mut tx, user.id, step).await? || !store::enable(&mut tx, user.id, &row.sealed, now).await? {
        return Err(ServiceError::Conflict("it was set up anew meanwhile: verify the newest setup".to_owned()));
    }
    let tokens = session::restart(app, &mut tx, user).await?;
    history::record(&mut tx, user.id, Happening::TwoFactorEnabled, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok((now, tokens))
}

/// Turns it off, with password and code. Ends every other session; gives new tokens.
pub async fn disable(
    app: &App,
    user: &User,
    password: Zeroizing<String>,
    code: &str,
    origin: &Origin,
) -> Result<Tokens, ServiceError> {
    in_force(app, user.id).await?;
    session::confirm_password(app, user.id, password).await?;
    confirm(app, user.id, "code", code, origin).await?;
    let mut tx = app.store.begin().await?;
    store::delete(&mut tx, user.id).await?;
    let tokens = session::restart(app, &mut tx, user).await?;
    history::record(&mut tx, user.id, Happening::TwoFactorDisabled, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(tokens)
}

/// Makes other backup codes, with password and code.
pub async fn regenerate(
    app: &App,
    user: &User,
    password: Zeroizing<String>,
    code: &str,
    origin: &Origin,
) -> Result<Vec<String>, ServiceError> {
    in_force(app, user.id).await?;
    session::confirm_password(app, user.id, password).await?;
    confirm(app, user.id, "code", code, origin).await?;
    let (codes, hashes) = code::backup_codes(user.id);
    let mut tx = app.store.begin().await?;
    store::replace_backup_codes(&mut tx, user.id, &hashes).await?;
    history::record(&mut tx, user.id, Happening::BackupCodes, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(codes)
}
