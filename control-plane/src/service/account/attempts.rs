//! What protects accounts from guessing and addresses from being flooded with mail: attempts counted in the
//! database, so that neither another replica nor a restart forgets them. Where the database does not answer,
//! nobody gets in.

use crate::{
    app::App,
    error::ServiceError,
    rate_limit::{Allowance, network},
    store::attempts as store,
};
use hoody_protocol::{id::UserId, time::now_ms};
use std::{net::IpAddr, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);
const QUARTER: Duration = Duration::from_secs(15 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Logins of one account from everywhere, and of one address to all accounts, for each login of one account
/// from one address that is allowed.
const WIDER: u32 = 10;
/// Passwords that a logged-in user may try in a quarter of an hour, and as many codes.
const CONFIRMATIONS: u32 = 10;
/// Invite codes that a user may try in an hour.
const INVITES: u32 = 10;
/// Mails to one address in an hour.
const MAILS: u32 = 5;

async fn count(app: &App, what: String, window: Duration, limit: u32) -> Result<Allowance, ServiceError> {
    let (count, end_ms) = store::count(&app.store, &what, window.as_millis() as i64).await?;
    let left_ms = end_ms - now_ms() as i64;
    Ok(Allowance {
        limit,
        remaining: limit.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX)),
        reset_at: end_ms as u64 / 1000,
        retry_after_s: (count > i64::from(limit)).then(|| left_ms.max(1) as u64 / 1000 + 1),
    })
}

/// The error where an attempt is over its limit.
pub fn within(allowance: Allowance) -> Result<(), ServiceError> {
    match allowance.retry_after_s {
        Some(retry_after_s) => Err(ServiceError::RateLimited { retry_after_s }),
        None => Ok(()),
    }
}

/// Counts a login; gives the tightest of its limits.
pub async fn login(app: &App, address: IpAddr, account: &str) -> Result<Allowance, ServiceError> {
    let limit = app.config.rate_limits.login;
    let (address, account) = (network(address), account.trim().to_lowercase());
    let narrow = count(app, format!("login {address} {account}"), MINUTE, limit).await?;
    let from_address = count(app, format!("login from {address}"), MINUTE, limit.saturating_mul(WIDER)).await?;
    let to_account = count(app, format!("login to {account}"), MINUTE, limit.saturating_mul(WIDER)).await?;
    let refused = [narrow, from_address, to_account].into_iter().find(|allowance| allowance.retry_after_s.is_some());
    Ok(refused.unwrap_or(narrow))
}

/// Counts a sign-up, or another request of a stranger that leads to mail.
pub async fn signup(app: &App, address: IpAddr) -> Result<Allowance, ServiceError> {
    count(app, format!("signup {}", network(address)), MINUTE, app.config.rate_limits.signup).await
}

/// Counts a code of a device that is typed or asked for, from one address.
pub async fn device(app: &App, address: IpAddr) -> Result<Allowance, ServiceError> {
    count(app, format!("device {}", network(address)), MINUTE, app.config.rate_limits.login).await
}

/// Counts a step of a sign-in with a provider, from one address.
pub async fn provider(app: &App, address: IpAddr) -> Result<(), ServiceError> {
    let limit = app.config.rate_limits.login.saturating_mul(WIDER);
    within(count(app, format!("provider {}", network(address)), MINUTE, limit).await?)
}

/// Counts a password with which a logged-in user confirms a change.
pub async fn password(app: &App, user: UserId) -> Result<(), ServiceError> {
    within(count(app, format!("password {user}"), QUARTER, CONFIRMATIONS).await?)
}

/// Counts a code of a user's second factor, wherever it is asked for.
pub async fn code(app: &App, user: UserId) -> Result<(), ServiceError> {
    within(count(app, format!("code {user}"), QUARTER, CONFIRMATIONS).await?)
}

/// Counts an invite code that a user tries.
pub async fn invite(app: &App, user: UserId) -> Result<(), ServiceError> {
    within(count(app, format!("invite {user}"), HOUR, INVITES).await?)
}

/// Counts a mail; false where the address got enough of them.
pub async fn mail(app: &App, email: &str) -> Result<bool, ServiceError> {
    Ok(count(app, format!("mail {email}"), HOUR, MAILS).await?.retry_after_s.is_none())
}
