//! Login, refresh and logout.
//!
//! A login starts a session, after its second factor where the account has one ([`super::sign_in::admit`]). Each
//! refresh replaces the session's refresh token; when one comes a second time, somebody else has a copy, so the
//! session ends with all its tokens. Logout ends every session and, by the token generation, every token of the
//! user.

use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    keys::{Claims, TokenError, TokenKind},
    service::{
        account::{
            attempts,
            history::{self, Happening},
            policy::{self, Problems},
        },
        one_time,
        password::Verified,
        sign_in::{self, Login, Purpose},
        two_factor,
    },
    store::{
        StoreError, profile, session,
        user::{self, User},
    },
};
use hoody_protocol::id::{SessionId, UserId};
use sqlx::AnyConnection;
use zeroize::Zeroizing;

const WRONG: &str =
    "wrong user name, e-mail address or password; a new account must first be verified with the token of its mail";
const WRONG_PASSWORD: &str = "the password is wrong";
const BANNED: &str = "this account is banned";
const NEEDS_CODE: &str = "this account has two-factor authentication: log in with a code and use the token";
const REFRESH_EXPIRED: &str = "the refresh token has expired: log in again";
const REFRESH_INVALID: &str = "the refresh token is not valid: log in again";
const REFRESH_REUSED: &str = "the refresh token was used before, so its session was ended: log in again";

/// An access token and the refresh token that goes with it. `Debug` shows neither.
pub struct Tokens {
    /// The access token.
    pub access: String,
    /// Its content.
    pub access_claims: Claims,
    /// The refresh token.
    pub refresh: String,
    /// Its content.
    pub refresh_claims: Claims,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("access_claims", &self.access_claims).finish_non_exhaustive()
    }
}

/// Logs in with a user name or e-mail address.
pub async fn login(
    app: &App,
    login: &str,
    secret: Zeroizing<String>,
    purpose: &Purpose,
    origin: &Origin,
) -> Result<Login, ServiceError> {
    let user = authenticate(app, login, secret, Happening::Login, origin).await?;
    sign_in::admit(app, user, purpose, Happening::Login, origin).await
}

/// The account of a request that carries user name and password itself. Not for accounts with a second
/// factor, whose point this would miss.
pub async fn basic(app: &App, login: &str, secret: Zeroizing<String>, origin: &Origin) -> Result<User, ServiceError> {
    let user = authenticate(app, login, secret, Happening::Basic, origin).await?;
    if two_factor::is_enabled(app, user.id).await? {
        return Err(ServiceError::Unauthenticated(NEEDS_CODE));
    }
    let mut tx = app.store.begin().await?;
    history::record(&mut tx, user.id, Happening::Basic, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(user)
}

/// The account with this name or address and this password. Who gets the password wrong learns nothing, and
/// nothing by the time it takes.
async fn authenticate(
    app: &App,
    login: &str,
    secret: Zeroizing<String>,
    happening: Happening,
    origin: &Origin,
) -> Result<User, ServiceError> {
    let found = user::by_login(&app.store, &login.trim().to_lowercase()).await?;
    let (user, hash) = found.unzip();
    let verified = app.passwords.verify(secret, hash.clone()).await?;
    let user = user.ok_or(ServiceError::Unauthenticated(WRONG))?;
    match verified {
        Verified::Yes => {}
        Verified::No => {
            history::record_failure(app, user.id, happening, origin);
            return Err(ServiceError::Unauthenticated(WRONG));
        }
        Verified::Rehashed(new) => profile::rehash(&app.store, user.id, &hash.unwrap_or_default(), &new).await?,
    }
    if user.is_banned {
        history::record_failure(app, user.id, happening, origin);
        return Err(ServiceError::Forbidden(BANNED.to_owned()));
    }
    Ok(user)
}

/// The password that a logged-in user gives once more to confirm a change.
pub async fn confirm_password(app: &App, user: UserId, secret: Zeroizing<String>) -> Result<(), ServiceError> {
    attempts::password(app, user).await?;
    let hash = profile::password_hash(&app.store, user).await?;
    match app.passwords.verify(secret, hash).await? {
        Verified::No => Err(ServiceError::Unauthenticated(WRONG_PASSWORD)),
        Verified::Yes | Verified::Rehashed(_) => Ok(()),
    }
}

/// Starts a session of the account, with the transaction that lets it in.
pub async fn start(
    app: &App,
    connection: &mut AnyConnection,
    user: UserId,
    generation: i64,
) -> Result<Tokens, ServiceError> {
    let session = SessionId::generate();
    let tokens = issue(app, user, session, generation)?;
    let hash = one_time::hash(&tokens.refresh);
    session::insert(connection, session, user, &hash, expiry_ms(&tokens.refresh_claims)).await?;
    Ok(tokens)
}

/// Ends every session of the account and starts a new one, with the transaction that changes what protects
/// it: whoever else is in is out.
pub async fn restart(app: &App, connection: &mut AnyConnection, user: &User) -> Result<Tokens, ServiceError> {
    session::delete_all(connection, user.id).await?;
    user::raise_token_generation(connection, user.id).await?;
    start(app, connection, user.id, user.token_generation + 1).await
}

/// Replaces a refresh token by a new pair.
pub async fn refresh(app: &App, token: &str, origin: &Origin) -> Result<Tokens, ServiceError> {
    let claims = app.keys.tokens.verify(token, TokenKind::Refresh).map_err(|error| {
        ServiceError::Unauthenticated(match error {
            TokenError::Expired => REFRESH_EXPIRED,
            TokenError::Invalid => REFRESH_INVALID,
        })
    })?;
    let user = user::by_id(&app.store, claims.sub).await?.ok_or(ServiceError::Unauthenticated(REFRESH_INVALID))?;
    if user.token_generation != claims.generation {
        return Err(ServiceError::Unauthenticated(REFRESH_INVALID));
    }
    if user.is_banned {
        return Err(ServiceError::Forbidden(BANNED.to_owned()));
    }
    let tokens = issue(app, user.id, claims.sid, user.token_generation)?;
    let (old, new) = (one_time::hash(token), one_time::hash(&tokens.refresh));
    if session::rotate(&app.store, claims.sid, &old, &new, expiry_ms(&tokens.refresh_claims)).await? {
        return Ok(tokens);
    }
    if session::delete(&app.store, claims.sid).await? {
        tracing::warn!(user = %user.id, session = %claims.sid, "a refresh token was used twice; its session was ended");
        history::record_failure(app, user.id, Happening::RefreshReused, origin);
    }
    Err(ServiceError::Unauthenticated(REFRESH_REUSED))
}

/// Ends every token of the user.
pub async fn logout(app: &App, user: UserId, origin: &Origin) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    user::raise_token_generation(&mut tx, user).await?;
    session::delete_all(&mut tx, user).await?;
    history::record(&mut tx, user, Happening::LoggedOut, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Makes an account, as an operator: nothing has to be verified.
pub async fn create_user(
    app: &App,
    username: &str,
    email: Option<&str>,
    secret: Zeroizing<String>,
    is_admin: bool,
) -> Result<UserId, ServiceError> {
    let mut problems = Problems::new();
    policy::username(username, &mut problems);
    if let Some(email) = email {
        policy::email(email, &mut problems);
    }
    policy::new_password(&secret, &[username, email.unwrap_or("")], &mut problems).await?;
    policy::none_of(problems)?;
    let password_hash = app.passwords.hash(secret).await?;
    let (username, email) = (username.to_lowercase(), email.map(str::to_lowercase));
    let new = user::NewUser { username: &username, email: email.as_deref(), password_hash: &password_hash, is_admin };
    let mut tx = app.store.begin().await?;
    let id = user::insert(&mut tx, &new).await?;
    if email.is_some() {
        profile::verified(&mut tx, id).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(id)
}

fn issue(app: &App, user: UserId, session: SessionId, generation: i64) -> Result<Tokens, ServiceError> {
    let access_claims = Claims::new(TokenKind::Access, user, session, generation);
    let refresh_claims = Claims::new(TokenKind::Refresh, user, session, generation);
    Ok(Tokens {
        access: app.keys.tokens.sign(&access_claims).map_err(ServiceError::internal)?,
        refresh: app.keys.tokens.sign(&refresh_claims).map_err(ServiceError::internal)?,
        access_claims,
        refresh_claims,
    })
}

fn expiry_ms(claims: &Claims) -> i64 {
    claims.exp as i64 * 1000
}
