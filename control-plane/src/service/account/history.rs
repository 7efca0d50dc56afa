//! The security history of an account: what its owner should see.

use crate::{
    app::App,
    caller::Origin,
    error::{ServiceError, chain},
    event::{Actor, EventKind, NewEvent},
    page::Page,
    store::{
        StoreError, event,
        security_event::{self as store, Event, Filter, NewSecurityEvent},
    },
};
use hoody_protocol::id::{RequestId, UserId};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

/// Characters that are kept of what a client calls itself.
const MAX_CLIENT_CHARS: usize = 128;
/// Logins that a login shows.
const RECENT: u64 = 5;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A login with a password.
    Login,
    /// A login with a second factor.
    SecondFactor,
    /// A request that carried user name and password.
    Basic,
    /// A login with a GitHub account.
    Github,
    /// A login with a Google account.
    Google,
    /// A device that was let in.
    Device,
    /// A session handed over to another page.
    HandedOver,
    /// Somebody let a device in.
    DeviceApproved,
    /// An account at a provider opens this account from now on.
    IdentityLinked,
    /// The account was made.
    SignedUp,
    /// Every session was ended.
    LoggedOut,
    /// A refresh token came a second time.
    RefreshReused,
    /// A new password, from who knew the old one, or from an operator.
    PasswordChanged,
    /// A new password, by mail.
    PasswordReset,
    /// Two-factor authentication is on.
    TwoFactorEnabled,
    /// It is off.
    TwoFactorDisabled,
    /// The backup codes are others.
    BackupCodes,
    /// A backup code was used.
    BackupCodeUsed,
    /// Auth tokens need a code.
    GateOn,
    /// They need none.
    GateOff,
}

impl Happening {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::SecondFactor => "login_2fa",
            Self::Basic => "login_basic",
            Self::Github => "login_github",
            Self::Google => "login_google",
            Self::Device => "login_device",
            Self::HandedOver => "login_handed_over",
            Self::DeviceApproved => "device_approved",
            Self::IdentityLinked => "identity_linked",
            Self::SignedUp => "signup",
            Self::LoggedOut => "logout",
            Self::RefreshReused => "refresh_token_reused",
            Self::PasswordChanged => "password_changed",
            Self::PasswordReset => "password_reset",
            Self::TwoFactorEnabled => "2fa_enabled",
            Self::TwoFactorDisabled => "2fa_disabled",
            Self::BackupCodes => "backup_codes_regenerated",
            Self::BackupCodeUsed => "backup_code_used",
            Self::GateOn => "token_gate_enabled",
            Self::GateOff => "token_gate_disabled",
        }
    }

    fn is_login(self) -> bool {
        matches!(
            self,
            Self::Login
                | Self::SecondFactor
                | Self::Basic
                | Self::SignedUp
                | Self::Github
                | Self::Google
                | Self::Device
                | Self::HandedOver
        )
    }
}

/// Writes down what happened, with the transaction that makes it happen. Logins are told by the session that
/// they start; changes are told here.
pub async fn record(
    connection: &mut AnyConnection,
    user: UserId,
    happening: Happening,
    origin: &Origin,
) -> Result<(), StoreError> {
    let id = write(connection, user, happening, true, origin).await?;
    if !happening.is_login() {
        let told = NewEvent::new(EventKind::ActivityLogged, id, Some(user), Actor::User(user));
        event::insert(connection, &told.with("action", happening.word())).await?;
    }
    Ok(())
}

/// Writes down what did not succeed, later: who guesses must not see by the time whether there was an account
/// to write it down for.
pub fn record_failure(app: &App, user: UserId, happening: Happening, origin: &Origin) {
    let (app, origin) = (app.clone(), origin.clone());
    tokio::spawn(async move {
        let written = async {
            let mut tx = app.store.begin().await?;
            write(&mut tx, user, happening, false, &origin).await?;
            tx.commit().await.map_err(StoreError::from)
        };
        if let Err(error) = written.await {
            tracing::warn!(error = chain(&error), "a failed login could not be written down");
        }
    });
}

async fn write(
    connection: &mut AnyConnection,
    user: UserId,
    happening: Happening,
    succeeded: bool,
    origin: &Origin,
) -> Result<RequestId, StoreError> {
    let client = origin.client.as_deref().map(|client| client.chars().take(MAX_CLIENT_CHARS).collect::<String>());
    let event = NewSecurityEvent {
        user,
        event: happening.word(),
        is_login: happening.is_login(),
        succeeded,
        ip_address: &origin.address.to_string(),
        client: client.as_deref(),
    };
    store::insert(connection, &event).await
}

/// One page of the account's history, newest first, and how long it is.
pub async fn list(app: &App, user: UserId, filter: Filter, page: Page) -> Result<(Vec<Event>, u64), ServiceError> {
    Ok(store::list(&app.store, user, filter, page).await?)
}

/// The last successful logins.
pub async fn recent_logins(app: &App, user: UserId) -> Result<Vec<Event>, ServiceError> {
    Ok(store::list(&app.store, user, Filter::default(), Page { page: 1, limit: RECENT }).await?.0)
}
