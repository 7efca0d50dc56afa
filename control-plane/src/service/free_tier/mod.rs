//! The free tier: an account may claim one server that an operator marked as free, once in its life, and gets
//! a default project with a running container on it. Where the settings say so, an invite code opens it.

mod home;
mod invite;

pub use home::{Container, Home, home};
pub use invite::{check_code, code_hash, create as create_code, redeem};

use crate::{
    app::App,
    error::ServiceError,
    service::account::{policy::Problems, profile},
    store::{
        StoreError,
        free_tier::{self as store, Region},
        user::User,
    },
};
use hoody_protocol::id::UserId;

/// Characters of the longest region.
const MAX_REGION_CHARS: usize = 50;

/// Why an account cannot claim a free server now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// By nothing.
    No,
    /// An invite code opens it.
    InviteRequired,
    /// None is left.
    PoolEmpty,
    /// It was claimed before.
    AlreadyClaimed,
}

impl Blocked {
    /// The contract's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::No => "none",
            Self::InviteRequired => "invite_required",
            Self::PoolEmpty => "pool_empty",
            Self::AlreadyClaimed => "already_claimed",
        }
    }
}

/// Where an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The account has its free server.
    pub has_server: bool,
    /// The free tier is open to it.
    pub unlocked: bool,
    /// What keeps it from claiming.
    pub blocked: Blocked,
    /// The invite code sent with the sign-up was not good.
    pub signup_code_failed: bool,
}

/// Checks a region's form.
pub fn check_region(region: Option<&str>, problems: &mut Problems) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_some_and(|region| !(1..=MAX_REGION_CHARS).contains(&region.len()) || !region.bytes().all(plain)) {
        let problem = format!("must be at most {MAX_REGION_CHARS} lower-case letters, digits and -");
        problems.insert("region".to_owned(), problem);
    }
}

/// Places with free servers.
pub async fn regions(app: &App) -> Result<Vec<Region>, ServiceError> {
    Ok(store::regions(&app.store).await?)
}

/// Where the account stands.
pub async fn status(app: &App, user: UserId) -> Result<Status, ServiceError> {
    let profile = profile::of(app, user).await?;
    let has_server = store::server_of(&app.store, user).await?.is_some();
    let unlocked = !app.config.free_tier.needs_invite || profile.free_tier_unlocked_at.is_some();
    let blocked = if has_server || profile.free_tier_claimed_at.is_some() {
        Blocked::AlreadyClaimed
    } else if !unlocked {
        Blocked::InviteRequired
    } else if store::unclaimed(&app.store).await? == 0 {
        Blocked::PoolEmpty
    } else {
        Blocked::No
    };
    Ok(Status { has_server, unlocked, blocked, signup_code_failed: profile.signup_code_failed })
}

/// Claims a free server, one of the region if possible, and makes the default project and container.
/// Whatever of it is there already stays; [`Blocked::No`] says that all could be tried.
pub async fn claim(app: &App, user: &User, region: Option<&str>) -> Result<Blocked, ServiceError> {
    let status = status(app, user.id).await?;
    if !status.has_server {
        if status.blocked != Blocked::No {
            return Ok(status.blocked);
        }
        let mut tx = app.store.begin().await?;
        if !store::use_claim(&mut tx, user.id).await? {
            return Ok(Blocked::AlreadyClaimed);
        }
        if !store::give_server(&mut tx, user.id, region).await? {
            // The claim is not used up: the transaction ends here.
            return Ok(Blocked::PoolEmpty);
        }
        tx.commit().await.map_err(StoreError::from)?;
        tracing::info!(user = %user.id, "a free server was claimed");
    }
    home::furnish(app, user).await?;
    Ok(Blocked::No)
}
