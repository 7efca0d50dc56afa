//! Login, refresh and logout.
//!
//! A login starts a session. Each refresh replaces the session's refresh token; when one comes a second
//! time, somebody else has a copy, so the session ends with all its tokens. Logout ends every session
//! and, by the token generation, every token of the user.

use crate::{
    app::App,
    error::ServiceError,
    keys::{Claims, TokenError, TokenKind},
    service::password,
    store::{
        session,
        user::{self, User},
    },
};
use hoody_protocol::id::{SessionId, UserId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const WRONG: &str = "wrong user name, e-mail address or password";
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
pub async fn login(app: &App, login: &str, secret: Zeroizing<String>) -> Result<(User, Tokens), ServiceError> {
    let found = user::by_login(&app.store, &login.trim().to_lowercase()).await?;
    let (user, hash) = found.unzip();
    let verified = app.passwords.verify(secret, hash).await?;
    let user = user.filter(|_| verified).ok_or(ServiceError::Unauthenticated(WRONG))?;
    if user.is_banned {
        return Err(ServiceError::Forbidden("this account is banned".to_owned()));
    }
    let session = SessionId::generate();
    let tokens = issue(app, user.id, session, user.token_generation)?;
    let mut tx = app.store.begin().await?;
    session::insert(&mut tx, session, user.id, &hash_of(&tokens.refresh), expiry_ms(&tokens.refresh_claims)).await?;
    tx.commit().await.map_err(crate::store::StoreError::from)?;
    Ok((user, tokens))
}

/// Replaces a refresh token by a new pair.
pub async fn refresh(app: &App, token: &str) -> Result<Tokens, ServiceError> {
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
        return Err(ServiceError::Forbidden("this account is banned".to_owned()));
    }
    let tokens = issue(app, user.id, claims.sid, user.token_generation)?;
    let (old, new) = (hash_of(token), hash_of(&tokens.refresh));
    if session::rotate(&app.store, claims.sid, &old, &new, expiry_ms(&tokens.refresh_claims)).await? {
        return Ok(tokens);
    }
    if session::delete(&app.store, claims.sid).await? {
        tracing::warn!(user = %user.id, session = %claims.sid, "a refresh token was used twice; its session was ended");
    }
    Err(ServiceError::Unauthenticated(REFRESH_REUSED))
}

/// Ends every token of the user.
pub async fn logout(app: &App, user: UserId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    user::raise_token_generation(&mut tx, user).await?;
    session::delete_all(&mut tx, user).await?;
    tx.commit().await.map_err(crate::store::StoreError::from)?;
    Ok(())
}

/// What a new account needs to be valid; the login name is kept in lower case.
pub fn check_account(username: &str, email: Option<&str>, secret: &str) -> Result<(), ServiceError> {
    let mut problems = std::collections::BTreeMap::new();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !(3..=50).contains(&username.len()) || !username.chars().all(plain) {
        problems.insert("username".to_owned(), "must be 3 to 50 letters, digits, - or _".to_owned());
    }
    let is_address = |email: &str| {
        email.len() <= 255
            && !email.chars().any(|c| c.is_whitespace() || c.is_control())
            && email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
    };
    if email.is_some_and(|email| !is_address(email)) {
        problems.insert("email".to_owned(), "must be an e-mail address".to_owned());
    }
    if !(password::MIN_CHARS..=password::MAX_CHARS).contains(&secret.chars().count()) {
        let problem = format!("must be {} to {} characters", password::MIN_CHARS, password::MAX_CHARS);
        problems.insert("password".to_owned(), problem);
    }
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}

/// Makes an account.
pub async fn create_user(
    app: &App,
    username: &str,
    email: Option<&str>,
    secret: Zeroizing<String>,
    is_admin: bool,
) -> Result<UserId, ServiceError> {
    check_account(username, email, &secret)?;
    let password_hash = app.passwords.hash(secret).await?;
    let (username, email) = (username.to_lowercase(), email.map(str::to_lowercase));
    let new = user::NewUser { username: &username, email: email.as_deref(), password_hash: &password_hash, is_admin };
    let mut tx = app.store.begin().await?;
    let id = user::insert(&mut tx, &new).await?;
    tx.commit().await.map_err(crate::store::StoreError::from)?;
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

/// Tokens are random enough that a plain hash of them cannot be searched.
fn hash_of(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

fn expiry_ms(claims: &Claims) -> i64 {
    claims.exp as i64 * 1000
}
