//! Members of pools: invited, joined, made admin, removed. The owner makes admins; an admin decides about
//! users only, so that two admins cannot remove each other.

use super::POOL;
use crate::{
    access::{Role, object},
    app::App,
    caller::Caller,
    error::ServiceError,
    event::{Actor, EventKind, NewEvent},
    store::{
        StoreError, event,
        pool::{self as store, Invitation, Member, Pool},
        user,
    },
};
use hoody_protocol::{
    id::{PoolId, UserId},
    time::now_ms,
};
use sqlx::AnyConnection;
use std::collections::BTreeMap;

/// Members and invitations of one pool.
const MAX_MEMBERS: i64 = 100;
const MEMBER: &str = "member";

/// Who is invited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invitee {
    /// By login name.
    Name(String),
    /// By id.
    Id(UserId),
}

/// Invites a user to the pool.
pub async fn invite(
    app: &App,
    caller: &Caller,
    id: PoolId,
    invitee: Invitee,
    role: Role,
) -> Result<Member, ServiceError> {
    // Before the transaction: nobody holds one connection while waiting for another.
    let found = match &invitee {
        // A name has no @: by_login then looks for nothing else.
        Invitee::Name(name) if name.contains('@') => None,
        Invitee::Name(name) => user::by_login(&app.store, &name.trim().to_lowercase()).await?.map(|(user, _)| user),
        Invitee::Id(id) => user::by_id(&app.store, *id).await?,
    };
    let mut tx = app.store.begin().await?;
    let pool = lock(&mut tx, id).await?;
    object::in_pool(&mut *tx, caller, &pool, at_least(role)).await?;
    let invited = found.ok_or(ServiceError::NotFound("user"))?;
    if invited.id == pool.owner {
        return Err(ServiceError::Conflict("the owner of a pool is in it already".to_owned()));
    }
    if !store::insert_member(&mut tx, id, invited.id, role, caller.user, MAX_MEMBERS).await? {
        let message = format!("the pool has {MAX_MEMBERS} members and invitations, the most there can be");
        let details = BTreeMap::from([("members".to_owned(), format!("limit {MAX_MEMBERS}"))]);
        return Err(ServiceError::Unprocessable { message, details });
    }
    let member = find(&mut tx, id, invited.id).await?;
    tell(&mut tx, EventKind::PoolInvited, &pool, &member, caller).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(member)
}

/// Changes a member's role; only for the owner.
pub async fn update_role(app: &App, caller: &Caller, id: PoolId, user: UserId, role: Role) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let pool = lock(&mut tx, id).await?;
    object::in_pool(&mut *tx, caller, &pool, Role::Owner).await?;
    if user == pool.owner {
        return Err(ServiceError::Conflict("the owner of a pool stays its owner".to_owned()));
    }
    let mut member = find(&mut tx, id, user).await?;
    if member.role != role {
        member.role = role;
        store::update_member(&mut tx, &member).await?;
        tell(&mut tx, EventKind::PoolMemberRoleChanged, &pool, &member, caller).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Removes a member or takes an invitation back; members can remove themselves. Their containers stay.
pub async fn remove(app: &App, caller: &Caller, id: PoolId, user: UserId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let pool = lock(&mut tx, id).await?;
    let own = object::in_pool(&mut *tx, caller, &pool, Role::User).await?;
    if user == pool.owner {
        return Err(ServiceError::Conflict("the owner of a pool cannot leave it: delete the pool".to_owned()));
    }
    if user != caller.user && own == Role::User {
        // Nothing of who is invited or not for those who may not ask.
        object::in_pool(&mut *tx, caller, &pool, Role::Admin).await?;
    }
    let member = find(&mut tx, id, user).await?;
    if user != caller.user {
        object::in_pool(&mut *tx, caller, &pool, at_least(member.role)).await?;
    }
    store::delete_member(&mut tx, member.id).await?;
    tell(&mut tx, end_of(&member), &pool, &member, caller).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// The caller's open invitations.
pub async fn invitations(app: &App, caller: &Caller) -> Result<Vec<Invitation>, ServiceError> {
    Ok(store::invitations(&app.store, caller.user).await?)
}

/// Accepts or rejects the caller's invitation to the pool.
pub async fn answer(app: &App, caller: &Caller, id: PoolId, accept: bool) -> Result<(), ServiceError> {
    const INVITATION: &str = "invitation";
    let mut tx = app.store.begin().await?;
    // Whoever is not invited learns nothing about the pool.
    let pool = store::lock(&mut tx, id).await?.ok_or(ServiceError::NotFound(INVITATION))?;
    let member = store::member(&mut *tx, id, caller.user).await?.filter(|member| !member.is_authorized);
    let mut member = member.ok_or(ServiceError::NotFound(INVITATION))?;
    if accept {
        member.is_authorized = true;
        member.joined_at = Some(now_ms() as i64);
        store::update_member(&mut tx, &member).await?;
        tell(&mut tx, EventKind::PoolMemberJoined, &pool, &member, caller).await?;
    } else {
        store::delete_member(&mut tx, member.id).await?;
        tell(&mut tx, EventKind::PoolInvitationRevoked, &pool, &member, caller).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Tells everybody in the pool, and whoever is invited, that they are not any more: it is being deleted.
pub(super) async fn tell_all_of_end(
    connection: &mut AnyConnection,
    pool: &Pool,
    caller: &Caller,
) -> Result<(), ServiceError> {
    for member in store::members(&mut *connection, pool.id).await? {
        tell(connection, end_of(&member), pool, &member, caller).await?;
    }
    Ok(())
}

fn end_of(member: &Member) -> EventKind {
    if member.is_authorized { EventKind::PoolMemberLeft } else { EventKind::PoolInvitationRevoked }
}

/// Who decides about a member with this role.
fn at_least(role: Role) -> Role {
    if role == Role::User { Role::Admin } else { Role::Owner }
}

async fn lock(connection: &mut AnyConnection, id: PoolId) -> Result<Pool, ServiceError> {
    store::lock(connection, id).await?.ok_or(ServiceError::NotFound(POOL))
}

async fn find(connection: &mut AnyConnection, pool: PoolId, user: UserId) -> Result<Member, ServiceError> {
    store::member(connection, pool, user).await?.ok_or(ServiceError::NotFound(MEMBER))
}

/// Told to both: the pool's owner, and the one it is about.
async fn tell(
    connection: &mut AnyConnection,
    kind: EventKind,
    pool: &Pool,
    member: &Member,
    caller: &Caller,
) -> Result<(), ServiceError> {
    for reader in [pool.owner, member.user] {
        let event = NewEvent::new(kind, pool.id, Some(reader), Actor::User(caller.user))
            .with("pool_name", pool.name.as_str())
            .with("user_id", member.user.to_string())
            .with("username", member.username.as_str())
            .with("role", member.role.as_str());
        event::insert(connection, &event).await?;
    }
    Ok(())
}
