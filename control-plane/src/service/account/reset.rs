//! A new password by mail, for who forgot the old one.

use super::{
    history::{self, Happening},
    policy::{self, Problems},
    sign_up::ask_for_mail,
};
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::one_time,
    store::{
        StoreError,
        mail::{self, JobKind},
        profile::{self, Change},
        session, user,
    },
};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a token for a new password is good.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);
const TOKEN: &str = "is not known, was used or has expired: ask for a new mail";

/// Sends a mail with a token, if the address has an account.
pub async fn forgot(app: &App, email: &str) -> Result<(), ServiceError> {
    ask_for_mail(app, JobKind::Reset, email).await
}

/// Sets the password of the token's account and ends its sessions. A second factor stays on.
pub async fn reset(app: &App, token: &str, password: Zeroizing<String>, origin: &Origin) -> Result<(), ServiceError> {
    let mut problems = Problems::new();
    if token.len() != one_time::CHARS {
        problems.insert("token".to_owned(), format!("must be {} characters", one_time::CHARS));
    }
    // First, so that a password that is refused does not use the token up.
    policy::new_password(&password, &[], &mut problems).await?;
    policy::none_of(problems)?;
    let password_hash = app.passwords.hash(password).await?;
    let mut tx = app.store.begin().await?;
    let taken = mail::take_reset(&mut tx, &one_time::hash(token)).await?;
    let user = taken.ok_or_else(|| ServiceError::invalid("token", TOKEN))?;
    let change = Change { password_hash: Some(password_hash), ..Change::default() };
    profile::update(&mut tx, user, &change).await?;
    profile::verified(&mut tx, user).await?;
    session::delete_all(&mut tx, user).await?;
    user::raise_token_generation(&mut tx, user).await?;
    history::record(&mut tx, user, Happening::PasswordReset, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}
