//! Making, changing and deleting tokens.

use super::{
    Input, Secret, TOKEN, bounds,
    input::{Checked, check},
    managed,
};
use crate::{
    access::Permissions,
    app::App,
    caller::Caller,
    error::ServiceError,
    event::{Actor, EventKind, NewEvent},
    store::{
        StoreError,
        auth_token::{self as store, AuthToken},
        event,
    },
};
use hoody_protocol::{
    id::{AuthTokenId, RealmId},
    time::now_ms,
};
use sqlx::AnyConnection;
use std::collections::BTreeMap;

/// Tokens of one account.
const MAX_TOKENS: usize = 20;

/// Makes a token; gives it with its value, which nobody sees again.
pub async fn create(app: &App, caller: &Caller, input: Input) -> Result<(AuthToken, Secret), ServiceError> {
    let input = check(input)?;
    let mut tx = app.store.begin().await?;
    let all = store::lock(&mut tx, caller.user).await?;
    let maker = maker(caller, &all)?;
    let secret = Secret::generate();
    let mut token = blank(caller, maker, &secret);
    // Without a word about permissions: all that its maker has, but for the operators' part.
    token.permissions = maker.map_or(Permissions::of_tenants(), |maker| maker.permissions);
    token.deny_reauthorization = input.deny_reauthorization;
    token.vault_access = input.vault_access.unwrap_or(false);
    token.event_access = input.event_access.unwrap_or(false);
    token.realms = maker.map(|maker| maker.realms.clone()).unwrap_or_default();
    token.networks = maker.map(|maker| maker.networks.clone()).unwrap_or_default();
    token.expires_at = maker.and_then(|maker| maker.expires_at);
    let allow_no_realm = input.allow_no_realm;
    apply(&mut token, input);
    // Restricting a token to realms restricts it to requests in them, unless it says otherwise.
    token.allow_no_realm =
        allow_no_realm.unwrap_or(token.realms.is_empty() && maker.is_none_or(|maker| maker.allow_no_realm));
    insert(&mut tx, caller, &all, maker, &token, &secret).await?;
    tell(&mut tx, EventKind::AuthTokenCreated, &token, caller).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok((token, secret))
}

/// Makes a token like another; gives it with its value. The public key stays with the other.
pub async fn copy(
    app: &App,
    caller: &Caller,
    id: AuthTokenId,
    input: Input,
) -> Result<(AuthToken, Secret), ServiceError> {
    let input = check(input)?;
    let mut tx = app.store.begin().await?;
    let all = store::lock(&mut tx, caller.user).await?;
    let original = managed(caller, &all, id)?;
    let maker = maker(caller, &all)?;
    let secret = Secret::generate();
    let now = now_ms() as i64;
    if input.expires_at.is_none() && original.has_expired(now) {
        return Err(ServiceError::invalid("expires_at", "is required: the token to copy has expired"));
    }
    let fresh = blank(caller, maker, &secret);
    let mut token = AuthToken {
        id: fresh.id,
        maker: fresh.maker,
        depth: fresh.depth,
        prefix: fresh.prefix,
        alias: copied_alias(&original.alias),
        is_enabled: true,
        is_suspended: false,
        last_used_at: None,
        last_used_ip: None,
        public_key: None,
        public_storage: None,
        created_at: now,
        updated_at: now,
        ..original.clone()
    };
    token.alias = input.alias.unwrap_or(token.alias);
    token.expires_at = input.expires_at.unwrap_or(token.expires_at);
    insert(&mut tx, caller, &all, maker, &token, &secret).await?;
    tell(&mut tx, EventKind::AuthTokenCreated, &token, caller).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok((token, secret))
}

fn copied_alias(alias: &str) -> String {
    const SUFFIX: &str = " copy";
    // Aliases are ASCII.
    format!("{}{SUFFIX}", &alias[..alias.len().min(254 - SUFFIX.len())])
}

/// Changes what the input names, in the token and, where it narrows, in those that come from it.
pub async fn update(app: &App, caller: &Caller, id: AuthTokenId, input: Input) -> Result<AuthToken, ServiceError> {
    let input = check(input)?;
    change(app, caller, id, |token| {
        apply(token, input);
        Ok(())
    })
    .await
}

/// What happens to a realm of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Realm {
    /// The token is for it too.
    Add(RealmId),
    /// The token is not for it any more.
    Remove(RealmId),
}

/// Adds or removes a realm; what is so already stays so.
pub async fn change_realm(
    app: &App,
    caller: &Caller,
    id: AuthTokenId,
    realm: Realm,
) -> Result<AuthToken, ServiceError> {
    change(app, caller, id, |token| {
        match realm {
            Realm::Add(realm) if !token.realms.contains(&realm) => {
                token.realms.push(realm);
                token.realms.sort_unstable();
            }
            Realm::Remove(realm) if token.realms == [realm] => {
                return Err(ServiceError::Conflict(
                    "this is the token's last realm, and without one it would be for all: delete the token, or set \
                     realm_ids to an empty list if that is what you want"
                        .to_owned(),
                ));
            }
            Realm::Remove(realm) => token.realms.retain(|other| *other != realm),
            Realm::Add(_) => {}
        }
        Ok(())
    })
    .await
}

/// Deletes the token, and all that come from it.
pub async fn delete(app: &App, caller: &Caller, id: AuthTokenId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let all = store::lock(&mut tx, caller.user).await?;
    let token = managed(caller, &all, id)?;
    for ended in all.iter().filter(|other| bounds::descends(&all, other, token)) {
        tell(&mut tx, EventKind::AuthTokenDeleted, ended, caller).await?;
    }
    store::delete(&mut tx, id).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Changes a token by `edit`; it stays within what the caller and its maker have.
pub(super) async fn change(
    app: &App,
    caller: &Caller,
    id: AuthTokenId,
    edit: impl FnOnce(&mut AuthToken) -> Result<(), ServiceError>,
) -> Result<AuthToken, ServiceError> {
    let mut tx = app.store.begin().await?;
    let mut all = store::lock(&mut tx, caller.user).await?;
    let before = managed(caller, &all, id)?.clone();
    let mut token = before.clone();
    edit(&mut token)?;
    token.updated_at = now_ms() as i64;
    let own = maker(caller, &all)?;
    let made_by = all.iter().find(|other| Some(other.id) == token.maker);
    for bound in own.into_iter().chain(made_by) {
        check_bounds(&token, bound)?;
    }
    check_operators_part(caller, &token)?;
    store::update(&mut tx, &token).await?;
    let kind = match (before.is_enabled, token.is_enabled) {
        (false, true) => EventKind::AuthTokenEnabled,
        (true, false) => EventKind::AuthTokenDisabled,
        _ => EventKind::AuthTokenUpdated,
    };
    tell(&mut tx, kind, &token, caller).await?;
    for entry in &mut all {
        if entry.id == token.id {
            *entry = token.clone();
        }
    }
    for narrowed in bounds::clamp_all(all) {
        store::update(&mut tx, &narrowed).await?;
        tell(&mut tx, EventKind::AuthTokenUpdated, &narrowed, caller).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(token)
}

/// The token that the caller makes others with, as it is now; `None`: a session.
fn maker<'a>(caller: &Caller, all: &'a [AuthToken]) -> Result<Option<&'a AuthToken>, ServiceError> {
    let Some(own) = &caller.token else { return Ok(None) };
    // Deleted since the request began.
    let now = all.iter().find(|token| token.id == own.id).ok_or(ServiceError::NotFound(TOKEN))?;
    Ok(Some(now))
}

async fn tell(
    connection: &mut AnyConnection,
    kind: EventKind,
    token: &AuthToken,
    caller: &Caller,
) -> Result<(), ServiceError> {
    let event = NewEvent::new(kind, token.id, Some(token.user), Actor::User(caller.user))
        .in_realms(&token.realms)
        .with("alias", token.alias.as_str())
        .with("prefix", token.prefix.as_str())
        .with("enabled", token.is_active());
    let event = match &caller.token {
        Some(own) => event.with("by_token_id", own.id.to_string()),
        None => event,
    };
    event::insert(connection, &event).await?;
    Ok(())
}

fn blank(caller: &Caller, maker: Option<&AuthToken>, secret: &Secret) -> AuthToken {
    let now = now_ms() as i64;
    AuthToken {
        id: AuthTokenId::generate(),
        user: caller.user,
        maker: maker.map(|maker| maker.id),
        depth: maker.map_or(0, |maker| maker.depth + 1),
        alias: format!("token {}", secret.shown()),
        prefix: secret.shown().to_owned(),
        permissions: Permissions::NONE,
        realms: Vec::new(),
        allow_no_realm: false,
        networks: Vec::new(),
        vault_access: false,
        event_access: false,
        deny_reauthorization: false,
        is_enabled: true,
        is_suspended: false,
        expires_at: None,
        last_used_at: None,
        last_used_ip: None,
        public_key: None,
        public_storage: None,
        created_at: now,
        updated_at: now,
    }
}

async fn insert(
    connection: &mut AnyConnection,
    caller: &Caller,
    all: &[AuthToken],
    maker: Option<&AuthToken>,
    token: &AuthToken,
    secret: &Secret,
) -> Result<(), ServiceError> {
    if all.len() >= MAX_TOKENS {
        let message = format!("you have {MAX_TOKENS} auth tokens, the most an account can have: delete one first");
        let details = BTreeMap::from([("tokens".to_owned(), format!("limit {MAX_TOKENS}"))]);
        return Err(ServiceError::Unprocessable { message, details });
    }
    if let Some(maker) = maker {
        check_bounds(token, maker)?;
    }
    check_operators_part(caller, token)?;
    Ok(store::insert(connection, token, &secret.hash()).await?)
}

fn check_bounds(token: &AuthToken, bound: &AuthToken) -> Result<(), ServiceError> {
    match bounds::excess(token, bound) {
        None => Ok(()),
        Some(excess) => Err(ServiceError::Forbidden(format!(
            "an auth token cannot be given {excess}, which the token \"{}\" that it comes from lacks",
            bound.alias
        ))),
    }
}

/// What only operators may do, only operators can give.
fn check_operators_part(caller: &Caller, token: &AuthToken) -> Result<(), ServiceError> {
    let allowed = caller.permissions().or(Permissions::of_tenants());
    match token.permissions.without(allowed).iter().next() {
        None => Ok(()),
        Some(permission) => {
            Err(ServiceError::Forbidden(format!("{} is for operators: leave it out", permission.path())))
        }
    }
}

fn apply(token: &mut AuthToken, input: Checked) {
    token.alias = input.alias.unwrap_or_else(|| std::mem::take(&mut token.alias));
    token.permissions = input.permissions.unwrap_or(token.permissions);
    if let Some(realms) = input.realms {
        token.realms = realms;
    }
    token.allow_no_realm = input.allow_no_realm.unwrap_or(token.allow_no_realm);
    if let Some(networks) = input.networks {
        token.networks = networks;
    }
    token.vault_access = input.vault_access.unwrap_or(token.vault_access);
    token.event_access = input.event_access.unwrap_or(token.event_access);
    token.is_enabled = input.is_enabled.unwrap_or(token.is_enabled);
    token.expires_at = input.expires_at.unwrap_or(token.expires_at);
    if let Some(key) = input.public_key {
        token.public_key = key;
    }
    if let Some(storage) = input.public_storage {
        token.public_storage = storage;
    }
}
