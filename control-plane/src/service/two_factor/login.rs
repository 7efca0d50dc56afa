//! The second half of a login: a temporary token that the password gave, and a code.

use super::code;
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::history::{self, Happening},
        one_time,
        sign_in::{self, Entered, Purpose},
    },
    store::{StoreError, two_factor as store, user},
};
use hoody_protocol::{id::UserId, time::now_ms};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a login waits for its code.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Codes that can be tried with one temporary token.
const MAX_TRIES: i64 = 5;
const NO_INTENT: &str = "must be tokens: this login was not for an intent; log in with response_mode intent first";
const UNKNOWN: &str = "the temporary token is not known, has expired or was tried too often: log in again";

/// A login that waits for its code.
pub struct Challenge {
    /// Names the login.
    pub temp_token: Zeroizing<String>,
    /// When it ends, milliseconds.
    pub expires_at: i64,
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenge").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Lets a login wait for its code.
pub async fn challenge(app: &App, user: UserId, purpose: &Purpose) -> Result<Challenge, ServiceError> {
    let temp_token = one_time::token();
    let expires_at = now_ms() as i64 + LIFETIME.as_millis() as i64;
    let mut tx = app.store.begin().await?;
    let (device, code_challenge) = match purpose {
        Purpose::Session => (None, None),
        Purpose::Intent { code_challenge } => (None, Some(code_challenge.clone())),
        Purpose::Device(id) => (Some(id.clone()), None),
    };
    let waiting = store::Waiting { user, device, code_challenge };
    store::insert_challenge(&mut tx, &one_time::hash(&temp_token), &waiting, expires_at).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Challenge { temp_token, expires_at })
}

/// Ends the login with a code. `wants_intent`: the client expects an intent, which the login then must have
/// been for.
pub async fn finish(
    app: &App,
    temp_token: &str,
    code: &str,
    wants_intent: bool,
    origin: &Origin,
) -> Result<Entered, ServiceError> {
    let hash = one_time::hash(temp_token);
    let found = store::try_challenge(&app.store, &hash, MAX_TRIES).await?;
    let store::Waiting { user: id, device, code_challenge } = found.ok_or(ServiceError::Unauthenticated(UNKNOWN))?;
    let purpose = match (device, code_challenge) {
        (Some(device), _) => Purpose::Device(device),
        (None, Some(code_challenge)) => Purpose::Intent { code_challenge },
        (None, None) if wants_intent => return Err(ServiceError::invalid("response_mode", NO_INTENT)),
        (None, None) => Purpose::Session,
    };
    if let Err(error) = code::confirm(app, id, "code", code, origin).await {
        history::record_failure(app, id, Happening::SecondFactor, origin);
        return Err(error);
    }
    let user = user::by_id(&app.store, id).await?.ok_or(ServiceError::Unauthenticated(UNKNOWN))?;
    if user.is_banned {
        return Err(ServiceError::Forbidden("this account is banned".to_owned()));
    }
    let mut tx = app.store.begin().await?;
    if !store::take_challenge(&mut tx, &hash).await? {
        return Err(ServiceError::Unauthenticated(UNKNOWN));
    }
    let entered = sign_in::enter(app, &mut tx, user, &purpose, Happening::SecondFactor, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(entered)
}
