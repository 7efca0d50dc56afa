//! Reading and changing accounts.

use super::{
    history::{self, Happening},
    policy::{self, Problems},
};
use crate::{
    app::App,
    caller::{Caller, Origin},
    error::ServiceError,
    event::{Actor, EventKind, NewEvent},
    service::{password, session as login},
    store::{
        StoreError, auth_token, event, mail, pool,
        profile::{self as store, Change, Object, Profile},
        session,
        user::{self, User},
    },
};
use chrono::{SecondsFormat, Utc};
use hoody_protocol::id::{SessionId, UserId};
use serde_json::Value;
use zeroize::Zeroizing;

/// Characters of the longest alias.
const MAX_ALIAS_CHARS: usize = 100;
/// Bytes of the largest metadata, as JSON.
const MAX_METADATA_BYTES: usize = 16 << 10;
/// Milestones of one account.
const MAX_MILESTONES: usize = 100;
const USER: &str = "user";

/// A change as sent.
#[derive(Debug, Default)]
pub struct Input {
    /// Name for people.
    pub alias: Option<String>,
    /// Replaces what clients keep about the account.
    pub metadata: Option<Object>,
    /// Ed25519, hexadecimal.
    pub public_key: Option<String>,
    /// The new password.
    pub password: Option<Zeroizing<String>>,
    /// The old password, which the account's owner must know to set a new one.
    pub current_password: Option<Zeroizing<String>>,
    /// Operators only.
    pub is_admin: Option<bool>,
    /// Operators only.
    pub is_banned: Option<bool>,
}

/// An account with its profile: the caller's own, or, for an operator, any.
pub async fn get(app: &App, caller: &Caller, id: UserId) -> Result<(User, Profile), ServiceError> {
    if id != caller.user && !caller.is_admin {
        return Err(ServiceError::NotFound(USER));
    }
    load(app, id).await
}

/// An account with its profile.
pub async fn load(app: &App, id: UserId) -> Result<(User, Profile), ServiceError> {
    let user = user::by_id(&app.store, id).await?.ok_or(ServiceError::NotFound(USER))?;
    Ok((user, of(app, id).await?))
}

/// The profile of an account that is there.
pub async fn of(app: &App, id: UserId) -> Result<Profile, ServiceError> {
    store::get(&app.store, id).await?.ok_or(ServiceError::NotFound(USER))
}

/// Pools that the account is invited to and has not answered.
pub async fn pending_invitations(app: &App, id: UserId) -> Result<i64, ServiceError> {
    Ok(pool::pending_invitations(&app.store, id).await?)
}

/// Auth tokens of the account.
pub async fn auth_tokens(app: &App, id: UserId) -> Result<i64, ServiceError> {
    Ok(auth_token::count(&app.store, id).await?)
}

/// Changes what the input names. A new password ends every session but `kept`, the caller's own; a ban ends
/// all.
pub async fn update(
    app: &App,
    caller: &Caller,
    kept: Option<SessionId>,
    id: UserId,
    input: Input,
    origin: &Origin,
) -> Result<(User, Profile), ServiceError> {
    let (user, _) = get(app, caller, id).await?;
    if !caller.is_admin && (input.is_admin.is_some() || input.is_banned.is_some()) {
        return Err(ServiceError::Forbidden("is_admin and is_banned are for operators: leave them out".to_owned()));
    }
    check(&user, caller, &input).await?;
    if let (Some(_), Some(current)) = (&input.password, &input.current_password) {
        login::confirm_password(app, id, current.clone()).await?;
    }
    let changes_password = input.password.is_some();
    let password_hash = match input.password.clone() {
        Some(secret) => Some(app.passwords.hash(secret).await?),
        None => None,
    };
    let change = Change {
        alias: input.alias.as_deref().map(|alias| alias.trim().to_owned()),
        metadata: input.metadata.clone(),
        public_key: input.public_key.as_deref().map(str::to_lowercase),
        is_admin: input.is_admin,
        is_banned: input.is_banned,
        password_hash,
    };
    let mut tx = app.store.begin().await?;
    let is_last = user.is_admin && !user.is_banned && user::administrators(&mut tx).await? == 1;
    if is_last && (input.is_admin == Some(false) || input.is_banned == Some(true)) {
        let message = "this is the last administrator: make another one first";
        return Err(ServiceError::Conflict(message.to_owned()));
    }
    if !store::update(&mut tx, id, &change).await? {
        return Err(ServiceError::NotFound(USER));
    }
    for kind in told(&user, &input) {
        event::insert(&mut tx, &NewEvent::new(kind, id, Some(id), Actor::User(caller.user))).await?;
    }
    if changes_password {
        mail::delete_tokens(&mut tx, id).await?;
        history::record(&mut tx, id, Happening::PasswordChanged, origin).await?;
    }
    if input.is_banned == Some(true) {
        session::delete_all(&mut tx, id).await?;
        user::raise_token_generation(&mut tx, id).await?;
    } else if changes_password {
        match kept.filter(|_| id == caller.user) {
            Some(kept) => session::delete_others(&mut tx, id, kept).await?,
            None => session::delete_all(&mut tx, id).await?,
        }
    }
    tx.commit().await.map_err(StoreError::from)?;
    load(app, id).await
}

/// What others are told about a change.
fn told(user: &User, input: &Input) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    if input.is_banned.is_some_and(|banned| banned != user.is_banned) {
        kinds.push(if user.is_banned { EventKind::UserUnbanned } else { EventKind::UserBanned });
    }
    if input.is_admin.is_some_and(|admin| admin != user.is_admin) {
        kinds.push(EventKind::UserRoleChanged);
    }
    kinds
}

async fn check(user: &User, caller: &Caller, input: &Input) -> Result<(), ServiceError> {
    let mut problems = Problems::new();
    if let Some(alias) = &input.alias {
        let chars = alias.trim().chars().count();
        if !(1..=MAX_ALIAS_CHARS).contains(&chars) || alias.chars().any(char::is_control) {
            problems.insert("alias".to_owned(), format!("must be 1 to {MAX_ALIAS_CHARS} printable characters"));
        }
    }
    let is_large = |metadata: &Object| Value::Object(metadata.clone()).to_string().len() > MAX_METADATA_BYTES;
    if input.metadata.as_ref().is_some_and(is_large) {
        problems.insert("metadata".to_owned(), format!("must be at most {MAX_METADATA_BYTES} bytes of JSON"));
    }
    if input.public_key.as_ref().is_some_and(|key| key.len() != 64 || !key.bytes().all(|b| b.is_ascii_hexdigit())) {
        problems.insert("public_key".to_owned(), "must be an Ed25519 key: 64 hexadecimal characters".to_owned());
    }
    if let Some(secret) = &input.password {
        let known = [&user.username, user.email.as_deref().unwrap_or("")];
        policy::new_password(secret, &known, &mut problems).await?;
        if user.id == caller.user && input.current_password.is_none() {
            problems.insert("current_password".to_owned(), "is required to set a new password".to_owned());
        }
    }
    let bounds = password::MIN_CHARS..=password::MAX_CHARS;
    if input.current_password.as_ref().is_some_and(|secret| !bounds.contains(&secret.chars().count())) {
        let problem = format!("must be {} to {} characters", password::MIN_CHARS, password::MAX_CHARS);
        problems.insert("current_password".to_owned(), problem);
    }
    policy::none_of(problems)
}

/// Notes that a milestone was reached, with the first time it was; gives all of them.
pub async fn milestone(app: &App, id: UserId, milestone: &str) -> Result<Object, ServiceError> {
    if !is_milestone(milestone) {
        let problem = "must be hub_tour_v<n>, dashboard_<word> or onboarding_<word>";
        return Err(ServiceError::invalid("milestone", problem));
    }
    let mut tx = app.store.begin().await?;
    let mut reached = store::lock_onboarding(&mut tx, id).await?;
    if reached.len() >= MAX_MILESTONES && !reached.contains_key(milestone) {
        return Err(ServiceError::Conflict(format!("an account has at most {MAX_MILESTONES} milestones")));
    }
    reached.entry(milestone).or_insert_with(|| now().into());
    store::set_onboarding(&mut tx, id, &reached).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(reached)
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `^(hub_tour_v[0-9]{1,3}|dashboard_[a-z0-9_]{1,30}|onboarding_[a-z0-9_]{1,30})$`
fn is_milestone(text: &str) -> bool {
    let word = |rest: &str| {
        (1..=30).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let number = |rest: &str| (1..=3).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix("hub_tour_v").is_some_and(number)
        || text.strip_prefix("dashboard_").or(text.strip_prefix("onboarding_")).is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milestones_are_of_three_kinds() {
        for good in ["hub_tour_v1", "hub_tour_v123", "dashboard_a", "onboarding_first_container"] {
            assert!(is_milestone(good), "{good}");
        }
        for bad in ["", "hub_tour_v", "hub_tour_v1234", "dashboard_", "dashboard_A", "other_a", "xdashboard_a"] {
            assert!(!is_milestone(bad), "{bad}");
        }
    }
}
