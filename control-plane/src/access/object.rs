//! May this caller touch this object? The owner may do everything; others what the object's project permits
//! them; operators may do everything with containers. Nobody sees what is outside of the request's realm.
//!
//! To whom an object is not even visible, it does not exist: 404. Who sees it but may not go as far gets 403.

use super::Role;
use crate::{
    caller::Caller,
    error::ServiceError,
    store::{
        Queries, StoreError,
        pool::{self, Pool},
        project_permission,
    },
};
use hoody_protocol::id::{ProjectId, RealmId, ServerId, UserId};
use std::str::FromStr;

/// How far somebody may go in a project; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// See the project and its containers.
    Read,
    /// Change them, and add containers.
    Edit,
    /// Delete them.
    Delete,
}

/// The text is none of the levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be read, edit or delete")]
pub struct UnknownLevel;

impl Level {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Edit => "edit",
            Self::Delete => "delete",
        }
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        [Self::Read, Self::Edit, Self::Delete].into_iter().find(|level| level.as_str() == text).ok_or(UnknownLevel)
    }
}

/// What is asked for: a project, or something in one.
#[derive(Debug, Clone, Copy)]
pub struct InProject<'a> {
    /// What a client calls it.
    pub what: &'static str,
    /// The project.
    pub project: ProjectId,
    /// Whose the project is.
    pub owner: UserId,
    /// The realms that the thing belongs to.
    pub realms: &'a [RealmId],
    /// Operators may touch it.
    pub for_operators: bool,
}

/// Ok where the caller may go as far as `needed` with `object`. Reads the database only for those who are
/// neither its owner nor an operator.
pub async fn in_project<'e>(
    queries: impl Queries<'e>,
    caller: &Caller,
    object: InProject<'_>,
    needed: Level,
) -> Result<(), ServiceError> {
    match level(queries, caller, object).await? {
        None => Err(ServiceError::NotFound(object.what)),
        Some(level) if level >= needed => Ok(()),
        Some(level) => Err(ServiceError::Forbidden(format!(
            "your permission in this project is {}, this needs {}: ask its owner",
            level.as_str(),
            needed.as_str()
        ))),
    }
}

async fn level<'e>(
    queries: impl Queries<'e>,
    caller: &Caller,
    object: InProject<'_>,
) -> Result<Option<Level>, StoreError> {
    if !caller.sees(object.realms) {
        return Ok(None);
    }
    if object.owner == caller.user || (object.for_operators && caller.is_admin) {
        return Ok(Some(Level::Delete));
    }
    project_permission::level(queries, object.project, caller.user).await
}

/// Ok where the caller owns the project; 403 for those who merely see it.
pub async fn own_project<'e>(
    queries: impl Queries<'e>,
    caller: &Caller,
    object: InProject<'_>,
) -> Result<(), ServiceError> {
    in_project(queries, caller, object, Level::Read).await?;
    if object.owner == caller.user {
        return Ok(());
    }
    Err(ServiceError::Forbidden("only the owner of the project may do this: ask them".to_owned()))
}

/// Ok, and the caller's role, where it is at least `needed` in the pool: 404 for who has none, 403 for who has
/// too little. Pools belong to no realm.
pub async fn in_pool<'e>(
    queries: impl Queries<'e>,
    caller: &Caller,
    pool: &Pool,
    needed: Role,
) -> Result<Role, ServiceError> {
    match pool::role(queries, pool, caller.user).await? {
        None => Err(ServiceError::NotFound("pool")),
        Some(role) if role >= needed => Ok(role),
        Some(role) => Err(ServiceError::Forbidden(format!(
            "you are {} of this pool, this needs {}: ask its owner",
            role.as_str(),
            needed.as_str()
        ))),
    }
}

/// Ok, and the caller's role, where it is at least `needed` on the server: 404 for who may not even use it, 403 for
/// who has too little. Placing containers is for every member of its pool; renting it on, extending it and running
/// commands on it is for its owner and the admins of its pool ([`Role::Admin`]).
pub async fn on_server<'e>(
    queries: impl Queries<'e>,
    caller: &Caller,
    server: ServerId,
    needed: Role,
) -> Result<Role, ServiceError> {
    match pool::server_roles(queries, caller.user, Some(server)).await?.get(&server) {
        None => Err(ServiceError::NotFound("server")),
        Some(role) if *role >= needed => Ok(*role),
        Some(role) => Err(ServiceError::Forbidden(format!(
            "you are {} in the pool of this server, this needs {}: ask its owner",
            role.as_str(),
            needed.as_str()
        ))),
    }
}

/// Ok where the caller may change what something belongs to from the realms `old` to `new`: a request that is
/// scoped to realms may take from or give to none but those.
pub fn check_realms(caller: &Caller, old: &[RealmId], new: &[RealmId]) -> Result<(), ServiceError> {
    let scope = caller.realms();
    let added = new.iter().filter(|realm| !old.contains(realm));
    let mut changed = added.chain(old.iter().filter(|realm| !new.contains(realm)));
    match changed.find(|realm| !scope.is_empty() && !scope.contains(realm)) {
        None => Ok(()),
        Some(realm) => Err(ServiceError::Forbidden(format!(
            "realm {realm} is not in the scope of this request: only its own realms can be added or removed"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_includes_those_before_it() {
        assert!(Level::Read < Level::Edit && Level::Edit < Level::Delete);
        for level in [Level::Read, Level::Edit, Level::Delete] {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        assert_eq!("admin".parse::<Level>(), Err(UnknownLevel));
    }
}
