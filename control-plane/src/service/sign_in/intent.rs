//! Logins that are handed over to an application: a page that somebody logged in at turns its intent (or its
//! session) into a code, the browser carries the code to the application, and the application exchanges it for
//! a session, proving by the verifier that it is the one that asked (RFC 7636). Intents and codes work once; a
//! logout or new password since then voids them.

use super::{Entered, Login, Purpose, admit, enter, pkce};
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::{history::Happening, policy},
        one_time,
    },
    store::{
        StoreError,
        grant::{self, GrantKind},
        user::{self, User},
    },
};
use hoody_protocol::{id::UserId, time::now_ms};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::AnyConnection;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long an intent waits.
const INTENT_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long a code is valid.
pub const CODE_LIFETIME: Duration = Duration::from_secs(60);
const NO_INTENT: &str = "the intent is not known, was used or has expired: log in again";
const INVALID_GRANT: ServiceError = ServiceError::Grant {
    code: "invalid_grant",
    message: "the code is not known, was used, has expired, or is for another redirect_uri or code_verifier: sign in again",
};
const BANNED: &str = "this account is banned";

/// A login that is not a session yet. `Debug` does not show the token.
pub struct Intent {
    /// Names it.
    pub token: Zeroizing<String>,
    /// When it ends, milliseconds.
    pub expires_at: i64,
}

impl std::fmt::Debug for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intent").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct IntentContent {
    code_challenge: String,
    generation: i64,
    happening: Happening,
}

#[derive(Serialize, Deserialize)]
struct CodeContent {
    code_challenge: String,
    redirect_uri: String,
    generation: i64,
    happening: Happening,
    /// The second factor, where there is one, was shown.
    is_complete: bool,
}

/// Stores what a token stands for, and gives the token.
pub(super) async fn give<T: Serialize>(
    connection: &mut AnyConnection,
    kind: GrantKind,
    user: Option<UserId>,
    content: &T,
    lifetime: Duration,
) -> Result<(Zeroizing<String>, i64), ServiceError> {
    let token = one_time::token();
    let expires_at = now_ms() as i64 + lifetime.as_millis() as i64;
    let content = serde_json::to_string(content).map_err(ServiceError::internal)?;
    grant::insert(connection, &one_time::hash(&token), kind, user, &content, expires_at).await?;
    Ok((token, expires_at))
}

/// What a token stands for; it is used up then, whatever comes of it.
pub(super) async fn take<T: DeserializeOwned>(
    app: &App,
    kind: GrantKind,
    token: &str,
) -> Result<Option<(Option<UserId>, T)>, ServiceError> {
    let mut tx = app.store.begin().await?;
    let taken = grant::take(&mut tx, &one_time::hash(token), kind).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let Some(taken) = taken else { return Ok(None) };
    Ok(Some((taken.user, serde_json::from_str(&taken.content).map_err(ServiceError::internal)?)))
}

/// Makes an intent of a login.
pub(super) async fn begin(
    connection: &mut AnyConnection,
    user: &User,
    code_challenge: &str,
    happening: Happening,
) -> Result<Intent, ServiceError> {
    let content =
        IntentContent { code_challenge: code_challenge.to_owned(), generation: user.token_generation, happening };
    let (token, expires_at) = give(connection, GrantKind::Intent, Some(user.id), &content, INTENT_LIFETIME).await?;
    Ok(Intent { token, expires_at })
}

/// Whom a page speaks for.
#[derive(Debug)]
pub enum Holder<'a> {
    /// Who logged in for this intent.
    Intent(&'a str),
    /// Who has a session.
    Session(Box<User>),
}

/// A code for the application at `redirect_uri`. The intent is used up.
pub async fn authorize(
    app: &App,
    holder: Holder<'_>,
    code_challenge: &str,
    redirect_uri: &str,
) -> Result<Zeroizing<String>, ServiceError> {
    let mut problems = policy::Problems::new();
    pkce::check_challenge(code_challenge, &mut problems);
    check_redirect(app, redirect_uri, &mut problems);
    policy::none_of(problems)?;
    let (user, happening) = match holder {
        Holder::Session(user) => (*user, Happening::HandedOver),
        Holder::Intent(token) => {
            let taken = take::<IntentContent>(app, GrantKind::Intent, token).await?;
            let Some((Some(id), content)) = taken else { return Err(ServiceError::Unauthenticated(NO_INTENT)) };
            let user = still(app, id, content.generation).await?.ok_or(ServiceError::Unauthenticated(NO_INTENT))?;
            if content.code_challenge != code_challenge {
                return Err(ServiceError::invalid("code_challenge", "must be the one that the login was for"));
            }
            (user, content.happening)
        }
    };
    let mut tx = app.store.begin().await?;
    let code = code(&mut tx, &user, code_challenge, redirect_uri, happening, true).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(code)
}

/// A code of an account; `is_complete`: its second factor was shown.
pub(super) async fn code(
    connection: &mut AnyConnection,
    user: &User,
    code_challenge: &str,
    redirect_uri: &str,
    happening: Happening,
    is_complete: bool,
) -> Result<Zeroizing<String>, ServiceError> {
    let content = CodeContent {
        code_challenge: code_challenge.to_owned(),
        redirect_uri: redirect_uri.to_owned(),
        generation: user.token_generation,
        happening,
        is_complete,
    };
    Ok(give(connection, GrantKind::Code, Some(user.id), &content, CODE_LIFETIME).await?.0)
}

/// Ends an intent that is not wanted any more; one that is not there is as good as ended.
pub async fn cancel(app: &App, token: &str) -> Result<(), ServiceError> {
    take::<IntentContent>(app, GrantKind::Intent, token).await?;
    Ok(())
}

/// Makes a session of a code.
pub async fn exchange(
    app: &App,
    code: &str,
    code_verifier: &str,
    redirect_uri: &str,
    origin: &Origin,
) -> Result<Login, ServiceError> {
    // Taken before it is looked at: a code that somebody tried with a wrong verifier is in wrong hands.
    let taken = take::<CodeContent>(app, GrantKind::Code, code).await?;
    let Some((Some(id), content)) = taken else { return Err(INVALID_GRANT) };
    if content.redirect_uri != redirect_uri || content.code_challenge != pkce::challenge(code_verifier) {
        return Err(INVALID_GRANT);
    }
    let user = still(app, id, content.generation).await?.ok_or(INVALID_GRANT)?;
    if !content.is_complete {
        return admit(app, user, &Purpose::Session, content.happening, origin).await;
    }
    let mut tx = app.store.begin().await?;
    let entered: Entered = enter(app, &mut tx, user, &Purpose::Session, content.happening, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Login::Done(entered))
}

/// The account, unless its tokens were ended since it had this generation.
pub(super) async fn still(app: &App, id: UserId, generation: i64) -> Result<Option<User>, ServiceError> {
    let Some(user) = user::by_id(&app.store, id).await? else { return Ok(None) };
    if user.is_banned {
        return Err(ServiceError::Forbidden(BANNED.to_owned()));
    }
    Ok((user.token_generation == generation).then_some(user))
}

/// Checks that an application may be sent codes: exactly the addresses that the operator lists.
pub(super) fn check_redirect(app: &App, redirect_uri: &str, problems: &mut policy::Problems) {
    if !app.config.oauth.redirect_uris.iter().any(|listed| listed == redirect_uri) {
        let problem = "is not an address that this platform hands logins to: ask its operator (oauth_redirect_uris)";
        problems.insert("redirect_uri".to_owned(), problem.to_owned());
    }
}
