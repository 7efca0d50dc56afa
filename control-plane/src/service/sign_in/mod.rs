//! Ways in, and what comes of them.
//!
//! However somebody shows who they are (password, provider), [`admit`] asks for the second factor where the
//! account has one, and [`enter`] gives what the login was for: a session, an intent that a page turns into a
//! code for an application ([`intent`]), or a device that is let in ([`device`]).

pub mod device;
pub mod flow;
pub mod intent;
mod person;
mod pkce;
mod provider;

pub use intent::Intent;
pub use pkce::{check_challenge, check_verifier};
pub(crate) use provider::fuzzing;
pub use provider::{Provider, Providers};

use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        account::history::{self, Happening},
        session::{self, Tokens},
        two_factor,
    },
    store::{StoreError, device_login, user::User},
};
use sqlx::AnyConnection;

const NO_DEVICE: &str = "the device does not wait any more: start again at the device";

/// What a login is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A session.
    Session,
    /// A code for an application that knows what hashes to the challenge.
    Intent {
        /// PKCE, S256.
        code_challenge: String,
    },
    /// This device.
    Device(String),
}

/// What a finished login gave.
#[derive(Debug)]
pub enum Entered {
    /// A session.
    Session(Box<(User, Tokens)>),
    /// An intent.
    Intent(Box<(User, Intent)>),
    /// The device gets its session when it asks the next time.
    Device,
}

/// How a login went on.
#[derive(Debug)]
pub enum Login {
    /// Finished.
    Done(Entered),
    /// A code is needed besides.
    NeedsCode(two_factor::Challenge),
}

/// Lets somebody in who has shown who they are, after the second factor where there is one.
pub async fn admit(
    app: &App,
    user: User,
    purpose: &Purpose,
    happening: Happening,
    origin: &Origin,
) -> Result<Login, ServiceError> {
    if two_factor::is_enabled(app, user.id).await? {
        return Ok(Login::NeedsCode(two_factor::challenge(app, user.id, purpose).await?));
    }
    let mut tx = app.store.begin().await?;
    let entered = enter(app, &mut tx, user, purpose, happening, origin).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Login::Done(entered))
}

/// Gives what the login was for, with the transaction that ends it.
pub async fn enter(
    app: &App,
    connection: &mut AnyConnection,
    user: User,
    purpose: &Purpose,
    happening: Happening,
    origin: &Origin,
) -> Result<Entered, ServiceError> {
    match purpose {
        Purpose::Session => {
            let tokens = session::start(app, connection, user.id, user.token_generation).await?;
            history::record(connection, user.id, happening, origin).await?;
            Ok(Entered::Session(Box::new((user, tokens))))
        }
        Purpose::Intent { code_challenge } => {
            let intent = intent::begin(connection, &user, code_challenge, happening).await?;
            Ok(Entered::Intent(Box::new((user, intent))))
        }
        Purpose::Device(id) => {
            if !device_login::approve(connection, id, user.id, user.token_generation).await? {
                return Err(ServiceError::Conflict(NO_DEVICE.to_owned()));
            }
            history::record(connection, user.id, Happening::DeviceApproved, origin).await?;
            Ok(Entered::Device)
        }
    }
}
