//! Devices without a browser (RFC 8628): the device shows a code; its owner types it on a page, signs in there,
//! and the device, which asks every few seconds, gets a session.

use super::{Login, Purpose, enter, intent::still, pkce};
use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{account::history::Happening, one_time, session, sign_in::Entered},
    store::{
        StoreError,
        device_login::{self as store, DeviceLogin, DeviceStatus, NewDeviceLogin},
    },
};
use hoody_protocol::time::now_ms;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a device waits.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// The least time between two polls, and what is added for each that comes too early.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How much earlier a poll may come: networks are not even.
const SLACK_MS: i64 = 500;
/// Polls further apart than this are not asked of anybody.
const MAX_INTERVAL_MS: i64 = 60_000;
/// Letters of a typed code: none spells a word or looks like a digit. Eight of them are 34 bits, which at ten
/// tries a minute and address are not found within the life of a code.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const CODE_LETTERS: usize = 8;
const NO_TICKET: &str = "device";

const PENDING: ServiceError = ServiceError::Grant {
    code: "authorization_pending",
    message: "nobody has typed the code and signed in yet: ask again after the interval",
};
const SLOW_DOWN: ServiceError =
    ServiceError::Grant { code: "slow_down", message: "too early: add five seconds to the interval from now on" };
const EXPIRED: ServiceError =
    ServiceError::Grant { code: "expired_token", message: "the code has expired: start again" };
const DENIED: ServiceError =
    ServiceError::Grant { code: "access_denied", message: "the sign-in was refused: start again to try once more" };
const INVALID_GRANT: ServiceError = ServiceError::Grant {
    code: "invalid_grant",
    message: "the device code is not known or was used, or the verifier is wrong: start again",
};

/// What a device gets to begin with.
pub struct Begun {
    /// It polls with this.
    pub device_code: Zeroizing<String>,
    /// It shows this.
    pub user_code: String,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Begun")
    }
}

/// Lets a device wait.
pub async fn begin(
    app: &App,
    client: Option<&str>,
    code_challenge: Option<&str>,
    origin: &Origin,
) -> Result<Begun, ServiceError> {
    let device_code = one_time::token();
    let letters: String =
        (0..CODE_LETTERS).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect();
    let new = NewDeviceLogin {
        device_hash: &one_time::hash(&device_code),
        user_code_hash: &one_time::hash(&letters),
        code_challenge,
        client,
        ip_address: &origin.address.to_string(),
        interval_ms: INTERVAL.as_millis() as i64,
        expires_at: now_ms() as i64 + LIFETIME.as_millis() as i64,
    };
    let mut tx = app.store.begin().await?;
    store::insert(&mut tx, &new).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let (first, second) = letters.split_at(CODE_LETTERS / 2);
    Ok(Begun { device_code, user_code: format!("{first}-{second}") })
}

/// Finds the device of a typed code; gives a ticket with which its owner decides.
pub async fn verify_code(app: &App, typed: &str) -> Result<(Zeroizing<String>, DeviceLogin), ServiceError> {
    let letters: String = typed.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase();
    let ticket = one_time::token();
    let mut tx = app.store.begin().await?;
    let found = store::give_ticket(&mut tx, &one_time::hash(&letters), &one_time::hash(&ticket)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let problem = "is not a code that a device shows now: compare it, or start again at the device";
    let device = found.ok_or_else(|| ServiceError::invalid("user_code", problem))?;
    Ok((ticket, device))
}

/// The id of the device that waits under a ticket.
pub async fn of_ticket(app: &App, ticket: &str) -> Result<String, ServiceError> {
    store::of_ticket(&app.store, &one_time::hash(ticket)).await?.ok_or(ServiceError::NotFound(NO_TICKET))
}

/// Lets the ticket's device in with user name and password, and a code where the account has a second factor.
pub async fn login(
    app: &App,
    ticket: &str,
    name: &str,
    secret: Zeroizing<String>,
    origin: &Origin,
) -> Result<Login, ServiceError> {
    let purpose = Purpose::Device(of_ticket(app, ticket).await?);
    session::login(app, name, secret, &purpose, origin).await
}

/// Turns the ticket's device away.
pub async fn deny(app: &App, ticket: &str) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let denied = store::deny(&mut tx, &one_time::hash(ticket)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    if denied { Ok(()) } else { Err(ServiceError::NotFound(NO_TICKET)) }
}

/// The session of a device that was let in, once; until then, why there is none.
pub async fn token(
    app: &App,
    device_code: &str,
    code_verifier: Option<&str>,
    origin: &Origin,
) -> Result<Entered, ServiceError> {
    let now = now_ms() as i64;
    let mut tx = app.store.begin().await?;
    let found = store::lock(&mut tx, &one_time::hash(device_code)).await?;
    let device = found.ok_or(INVALID_GRANT)?;
    match (&device.code_challenge, code_verifier) {
        (None, _) => {}
        (Some(_), None) => {
            return Err(ServiceError::invalid("code_verifier", "is required: the device began with a code_challenge"));
        }
        (Some(challenge), Some(verifier)) if *challenge == pkce::challenge(verifier) => {}
        (Some(_), Some(_)) => return Err(INVALID_GRANT),
    }
    if device.expires_at <= now {
        return Err(EXPIRED);
    }
    let is_early = device.polled_at.is_some_and(|last| now - last < device.interval_ms - SLACK_MS);
    let longer = (device.interval_ms + INTERVAL.as_millis() as i64).min(MAX_INTERVAL_MS);
    store::polled(&mut tx, &device.id, now, if is_early { longer } else { device.interval_ms }).await?;
    let refusal = match device.status {
        _ if is_early => SLOW_DOWN,
        DeviceStatus::Pending => PENDING,
        DeviceStatus::Denied => DENIED,
        DeviceStatus::Approved { user, generation } => {
            // Read outside of the transaction: what ends tokens raises the generation, which tokens carry.
            let user = still(app, user, generation).await?.ok_or(DENIED)?;
            let origin = origin.clone().named(device.client);
            store::delete(&mut tx, &device.id).await?;
            let entered = enter(app, &mut tx, user, &Purpose::Session, Happening::Device, &origin).await?;
            tx.commit().await.map_err(StoreError::from)?;
            return Ok(entered);
        }
    };
    tx.commit().await.map_err(StoreError::from)?;
    Err(refusal)
}
