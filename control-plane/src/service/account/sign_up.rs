//! Sign-up and verification of the e-mail address.
//!
//! Whether an address has an account already shows nowhere: a sign-up does the same work and gives the same
//! answer either way, and what the mail says is decided later ([`crate::tasks::mail`]). The account is only
//! made when the mail is answered, with the password of the very sign-up that the mail was for.

use super::{
    history::Happening,
    policy::{self, Problems},
};
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        free_tier, one_time,
        password::Verified,
        sign_in::{self, Entered, Purpose},
    },
    store::{
        StoreError, invite_code,
        mail::{self, JobKind},
        profile, sign_up as store,
        user::{self, NewUser},
    },
};
use hoody_protocol::{id::UserId, time::now_ms};
use sqlx::AnyConnection;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a sign-up waits for its mail to be answered.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Sign-ups of one address that wait at the same time.
const MAX_WAITING: i64 = 5;
/// Characters of a name taken from an address.
const MAX_STEM_CHARS: usize = 40;
const NOT_YOURS: &str =
    "is not the one of this sign-up: if somebody else signed up with your address, sign up yourself";
const TOKEN: &str = "is not known, was used or has expired: ask for a new mail";

/// A sign-up as sent.
#[derive(Debug, Default)]
pub struct Input {
    /// The address.
    pub email: String,
    /// The name wished for; where it is taken, something is added. Without one, it is taken from the address.
    pub username: Option<String>,
    /// The password.
    pub password: Zeroizing<String>,
    /// Region of the free server wished for.
    pub region: Option<String>,
    /// Opens the free tier.
    pub invite_code: Option<String>,
}

/// Takes a sign-up; gives the address that gets a mail.
pub async fn sign_up(app: &App, input: Input, origin: &Origin) -> Result<String, ServiceError> {
    let email = input.email.trim().to_lowercase();
    let mut problems = Problems::new();
    policy::email(&email, &mut problems);
    if let Some(username) = &input.username {
        policy::username(username, &mut problems);
    }
    free_tier::check_region(input.region.as_deref(), &mut problems);
    free_tier::check_code("invite_code", input.invite_code.as_deref(), &mut problems);
    policy::new_password(&input.password, &[&email, input.username.as_deref().unwrap_or("")], &mut problems).await?;
    policy::none_of(problems)?;

    let password_hash = app.passwords.hash(input.password).await?;
    if store::waiting(&app.store, &email).await? >= MAX_WAITING {
        // Somebody floods the address. The answer is the same.
        return Ok(email);
    }
    let sign_up = store::SignUp {
        id: store::new_id(),
        username: input.username.unwrap_or_else(|| stem(&email)).to_lowercase(),
        email: email.clone(),
        password_hash,
        region: input.region,
        invite_hash: input.invite_code.as_deref().map(free_tier::code_hash),
        ip_address: origin.address.to_string(),
    };
    let mut tx = app.store.begin().await?;
    store::insert(&mut tx, &sign_up, now_ms() as i64 + LIFETIME.as_millis() as i64).await?;
    mail::enqueue(&mut tx, JobKind::SignUp, &email, Some(&sign_up.id)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.mailer.wake();
    Ok(email)
}

/// Sends the mail of a sign-up again, if one waits.
pub async fn resend(app: &App, email: &str) -> Result<(), ServiceError> {
    ask_for_mail(app, JobKind::Resend, email).await
}

/// Leaves a mail to be written; whether the address is known is found out later.
pub(super) async fn ask_for_mail(app: &App, kind: JobKind, email: &str) -> Result<(), ServiceError> {
    let email = email.trim().to_lowercase();
    let mut problems = Problems::new();
    policy::email(&email, &mut problems);
    policy::none_of(problems)?;
    let mut tx = app.store.begin().await?;
    mail::enqueue(&mut tx, kind, &email, None).await?;
    tx.commit().await.map_err(StoreError::from)?;
    app.mailer.wake();
    Ok(())
}

/// Makes the account that the token's sign-up asked for, and logs it in. Where `password` is given it must be the
/// one that was signed up with: so nobody opens an account by mistake that a stranger chose the password of.
pub async fn verify(
    app: &App,
    token: &str,
    password: Option<Zeroizing<String>>,
    purpose: &Purpose,
    origin: &Origin,
) -> Result<Entered, ServiceError> {
    if token.len() != one_time::CHARS {
        return Err(ServiceError::invalid("token", format!("must be {} characters", one_time::CHARS)));
    }
    if let Some(password) = password {
        confirm(app, token, password).await?;
    }
    let mut tx = app.store.begin().await?;
    let taken = store::take(&mut tx, &one_time::hash(token)).await?;
    let sign_up = taken.ok_or_else(|| ServiceError::invalid("token", TOKEN))?;
    let username = free_name(&mut tx, &sign_up.username).await?;
    let new = NewUser {
        username: &username,
        email: Some(&sign_up.email),
        password_hash: &sign_up.password_hash,
        is_admin: false,
    };
    let id = user::insert(&mut tx, &new).await?;
    profile::signed_up(&mut tx, id, sign_up.region.as_deref()).await?;
    if let Some(hash) = &sign_up.invite_hash {
        redeem(&mut tx, id, hash).await?;
    }
    let user = user::lock_by_id(&mut tx, id).await?.ok_or(ServiceError::NotFound("user"))?;
    let entered = sign_in::enter(app, &mut tx, user.clone(), purpose, Happening::SignedUp, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    // The account is there, with or without a free server: that can be tried again.
    if let Err(error) = free_tier::claim(app, &user, sign_up.region.as_deref()).await {
        tracing::warn!(user = %id, error = crate::error::chain(&error), "a new account got no free server");
    }
    Ok(entered)
}

/// Whether the password is that of the token's sign-up, which goes on waiting where it is not.
async fn confirm(app: &App, token: &str, password: Zeroizing<String>) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let waiting = store::take(&mut tx, &one_time::hash(token)).await?;
    // Only looked at. And nobody holds the database while a password is hashed.
    tx.rollback().await.map_err(StoreError::from)?;
    let hash = waiting.map(|sign_up| sign_up.password_hash);
    match (hash.is_some(), app.passwords.verify(password, hash).await?) {
        (false, _) => Err(ServiceError::invalid("token", TOKEN)),
        (true, Verified::No) => Err(ServiceError::invalid("password", NOT_YOURS)),
        (true, Verified::Yes | Verified::Rehashed(_)) => Ok(()),
    }
}

/// The name wished for, or, where it is taken, the name with something added.
pub async fn free_name(connection: &mut AnyConnection, wish: &str) -> Result<String, StoreError> {
    let taken = user::is_username_taken(connection, wish).await?;
    Ok(if taken { with_suffix(wish) } else { wish.to_owned() })
}

/// Opens the free tier of a new account with the invite code that it came with, or notes that it was no good.
pub async fn redeem(connection: &mut AnyConnection, user: UserId, code_hash: &str) -> Result<(), StoreError> {
    if invite_code::redeem(connection, code_hash).await? {
        crate::store::free_tier::unlock(connection, user, "signup_code").await?;
    } else {
        crate::store::free_tier::code_failed(connection, user).await?;
    }
    Ok(())
}

/// A user name out of an address.
pub fn stem(email: &str) -> String {
    let local = email.split('@').next().unwrap_or_default();
    let stem: String = local
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(MAX_STEM_CHARS)
        .collect();
    let stem = stem.trim_matches('-');
    if stem.len() < 3 { format!("user-{stem}").trim_end_matches('-').to_owned() } else { stem.to_owned() }
}

/// `name-1f0c93`, at most as long as a name can be.
fn with_suffix(name: &str) -> String {
    let kept: String = name.chars().take(MAX_STEM_CHARS).collect();
    format!("{kept}-{}", hex::encode(rand::random::<[u8; 3]>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_made_from_addresses_are_valid() {
        for (email, expected) in
            [("ann.smith@example.org", "ann-smith"), ("a@example.org", "user-a"), ("+@example.org", "user")]
        {
            let name = stem(email);
            assert_eq!(name, expected);
            for name in [with_suffix(&name), name] {
                let mut problems = Problems::new();
                policy::username(&name, &mut problems);
                assert!(problems.is_empty(), "{name}");
            }
        }
        assert!(stem(&format!("{}@example.org", "x".repeat(200))).len() <= MAX_STEM_CHARS);
    }
}
