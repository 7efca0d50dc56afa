//! Pools: servers that several accounts use together. The owner decides about the pool, admins about who
//! uses it, and every member may place their containers on its servers.

mod member;

pub use member::{Invitee, answer, invitations, invite, remove, update_role};

use crate::{
    access::{Role, object},
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        StoreError,
        pool::{self as store, Listed, Member, Pool, PoolServer},
    },
};
use hoody_protocol::{id::PoolId, time::now_ms};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Pools that one account owns.
const MAX_POOLS: i64 = 20;
/// Characters of the longest name.
const MAX_NAME_CHARS: usize = 100;
/// Characters of the longest description.
const MAX_DESCRIPTION_CHARS: usize = 500;
/// Bytes of the settings, as JSON.
const MAX_SETTINGS_BYTES: usize = 16 << 10;
const POOL: &str = "pool";

/// A pool as sent; `None`: nothing was said.
#[derive(Debug, Default)]
pub struct Input {
    /// Unique among the owner's.
    pub name: Option<String>,
    /// For people; `Some(None)`: none.
    pub description: Option<Option<String>>,
    /// What clients keep with it.
    pub settings: Option<Map<String, Value>>,
}

fn check(input: &Input) -> Result<(), ServiceError> {
    let mut problems = BTreeMap::new();
    let printable = |text: &str, max: usize| text.chars().count() <= max && !text.chars().any(char::is_control);
    if input.name.as_ref().is_some_and(|name| name.trim().is_empty() || !printable(name, MAX_NAME_CHARS)) {
        problems.insert("name".to_owned(), format!("must be 1 to {MAX_NAME_CHARS} printable characters"));
    }
    let description = input.description.as_ref().and_then(Option::as_ref);
    if description.is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS) {
        problems.insert("description".to_owned(), format!("must be at most {MAX_DESCRIPTION_CHARS} characters"));
    }
    let bytes = input.settings.as_ref().map_or(0, |map| Value::Object(map.clone()).to_string().len());
    if bytes > MAX_SETTINGS_BYTES {
        problems.insert("settings".to_owned(), format!("must be at most {MAX_SETTINGS_BYTES} bytes of JSON"));
    }
    if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
}

/// The pools that the caller owns or is a member of.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Listed>, ServiceError> {
    Ok(store::list(&app.store, caller.user).await?)
}

/// A pool with all that is in it.
#[derive(Debug)]
pub struct Details {
    /// The pool.
    pub pool: Pool,
    /// The owner's login name and name for people.
    pub owner: (String, String),
    /// Everybody else, the invited too.
    pub members: Vec<Member>,
    /// Its servers.
    pub servers: Vec<PoolServer>,
}

/// A pool that the caller owns or is a member of.
pub async fn get(app: &App, caller: &Caller, id: PoolId) -> Result<Details, ServiceError> {
    let pool = store::get(app.store.reader(), id).await?.ok_or(ServiceError::NotFound(POOL))?;
    object::in_pool(app.store.reader(), caller, &pool, Role::User).await?;
    let owner = crate::store::user::by_id(&app.store, pool.owner).await?.ok_or(ServiceError::NotFound(POOL))?;
    let (members, servers) = (store::members(app.store.reader(), id).await?, store::servers(&app.store, id).await?);
    Ok(Details { pool, owner: (owner.username, owner.alias), members, servers })
}

/// Makes a pool.
pub async fn create(app: &App, caller: &Caller, input: Input) -> Result<Pool, ServiceError> {
    check(&input)?;
    let name = input.name.ok_or_else(|| ServiceError::invalid("name", "is required"))?;
    let now = now_ms() as i64;
    let pool = Pool {
        id: PoolId::generate(),
        owner: caller.user,
        name: name.trim().to_owned(),
        description: input.description.flatten(),
        settings: input.settings.unwrap_or_default(),
        is_default: false,
        created_at: now,
        updated_at: now,
    };
    let mut tx = app.store.begin().await?;
    if !store::insert(&mut tx, &pool, MAX_POOLS).await? {
        let message = format!("you own {MAX_POOLS} pools, the most an account can own: delete one first");
        let details = BTreeMap::from([("pools".to_owned(), format!("limit {MAX_POOLS}"))]);
        return Err(ServiceError::Unprocessable { message, details });
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(pool)
}

/// Changes what the input names; only for the owner.
pub async fn update(app: &App, caller: &Caller, id: PoolId, input: Input) -> Result<(), ServiceError> {
    check(&input)?;
    let mut tx = app.store.begin().await?;
    let mut pool = store::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound(POOL))?;
    object::in_pool(&mut *tx, caller, &pool, Role::Owner).await?;
    pool.name = input.name.map_or(pool.name, |name| name.trim().to_owned());
    pool.description = input.description.unwrap_or(pool.description);
    pool.settings = input.settings.unwrap_or(pool.settings);
    store::update(&mut tx, &pool).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Deletes a pool; only for the owner, never the default one, and not while containers of others are on its
/// servers. The servers are in their owners' default pools then.
pub async fn delete(app: &App, caller: &Caller, id: PoolId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let pool = store::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound(POOL))?;
    object::in_pool(&mut *tx, caller, &pool, Role::Owner).await?;
    if pool.is_default {
        return Err(ServiceError::Conflict("the default pool cannot be deleted".to_owned()));
    }
    let guests = store::guests(&mut tx, id).await?;
    if guests > 0 {
        return Err(ServiceError::Conflict(format!(
            "{guests} containers of members are on the pool's servers: delete them first"
        )));
    }
    member::tell_all_of_end(&mut tx, &pool, caller).await?;
    store::delete(&mut tx, id).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}
