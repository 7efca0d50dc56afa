//! Which account somebody has whom a provider knows. One that signed in that way before has the same account
//! again; else the verified address decides: it opens the account that verified it too, or a new one.

use super::provider::Person;
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::{
            history::{self, Happening},
            policy::{self, Problems},
            sign_up,
        },
        free_tier, one_time,
    },
    store::{
        StoreError, identity, mail,
        user::{self, NewUser, User},
    },
};
use hoody_protocol::id::UserId;
use sqlx::AnyConnection;

/// Why a provider's word is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The provider has no address of theirs that it verified.
    NoAddress,
    /// There is an account with the address, which it has not verified itself.
    Unverified,
    /// The account is banned.
    Banned,
}

/// The account, made where there is none.
pub(super) async fn account(
    app: &App,
    person: &Person,
    invite_hash: Option<&str>,
    origin: &Origin,
) -> Result<Result<User, Refusal>, ServiceError> {
    // Made before the transaction: it takes a while. Nobody knows this password; a mail can set another.
    let password_hash = match known(app, person).await? {
        true => None,
        false => Some(app.passwords.hash(one_time::token()).await?),
    };
    let mut tx = app.store.begin().await?;
    let (provider, subject) = (person.provider.word(), person.subject.as_str());
    let mut is_new = false;
    let id = match identity::user_of(&mut tx, provider, subject).await? {
        Some(id) => id,
        None => {
            let mut problems = Problems::new();
            let Some(email) = person.email.as_deref() else { return Ok(Err(Refusal::NoAddress)) };
            policy::email(email, &mut problems);
            if !problems.is_empty() {
                return Ok(Err(Refusal::NoAddress));
            }
            let id = match (user::by_email(&mut tx, email).await?, password_hash) {
                (Some((_, false)), _) => return Ok(Err(Refusal::Unverified)),
                (Some((user, true)), _) if user.is_banned => return Ok(Err(Refusal::Banned)),
                (Some((user, true)), _) => {
                    history::record(&mut tx, user.id, Happening::IdentityLinked, origin).await?;
                    mail::enqueue(&mut tx, person.provider.linked(), email, None).await?;
                    user.id
                }
                (None, Some(password_hash)) => {
                    is_new = true;
                    make(&mut tx, person, email, &password_hash, invite_hash, origin).await?
                }
                // The account was removed since we looked.
                (None, None) => return Err(ServiceError::Conflict("the account changed: sign in again".to_owned())),
            };
            identity::insert(&mut tx, provider, subject, id).await?;
            id
        }
    };
    let user = user::lock_by_id(&mut tx, id).await?.ok_or(ServiceError::NotFound("user"))?;
    if user.is_banned {
        return Ok(Err(Refusal::Banned));
    }
    tx.commit().await.map_err(StoreError::from)?;
    app.mailer.wake();
    if is_new && let Err(error) = free_tier::claim(app, &user, None).await {
        tracing::warn!(user = %user.id, error = crate::error::chain(&error), "a new account got no free server");
    }
    Ok(Ok(user))
}

/// Whether there is an account already.
async fn known(app: &App, person: &Person) -> Result<bool, ServiceError> {
    let mut tx = app.store.begin().await?;
    if identity::user_of(&mut tx, person.provider.word(), &person.subject).await?.is_some() {
        return Ok(true);
    }
    let Some(email) = person.email.as_deref() else { return Ok(false) };
    Ok(user::by_email(&mut tx, email).await?.is_some())
}

async fn make(
    connection: &mut AnyConnection,
    person: &Person,
    email: &str,
    password_hash: &str,
    invite_hash: Option<&str>,
    origin: &Origin,
) -> Result<UserId, ServiceError> {
    let wish = sign_up::stem(person.name.as_deref().unwrap_or(email)).to_lowercase();
    let username = sign_up::free_name(connection, &wish).await?;
    let new = NewUser { username: &username, email: Some(email), password_hash, is_admin: false };
    let id = user::insert(connection, &new).await?;
    identity::signed_up(connection, id, person.provider.word(), person.avatar_url.as_deref()).await?;
    if let Some(hash) = invite_hash {
        sign_up::redeem(connection, id, hash).await?;
    }
    history::record(connection, id, Happening::SignedUp, origin).await?;
    Ok(id)
}
