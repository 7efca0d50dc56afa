//! Who asks for something, for every layer that decides by it.

use crate::{
    access::{Permission, Permissions},
    store::{auth_token::AuthToken, user::User},
};
use hoody_protocol::id::{RealmId, UserId};
use std::{net::IpAddr, sync::Arc};

/// An authenticated user, and what the credential of this request lets them do.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account.
    pub user: UserId,
    /// Acts as an operator on what belongs to others: the account has the admin flag, and the credential the
    /// permission for it.
    pub is_admin: bool,
    /// The account's name.
    pub username: String,
    /// The realm that the request is scoped to.
    pub realm: Option<RealmId>,
    /// The auth token of the request; `None`: a session, which may do all that the account may.
    pub token: Option<Arc<AuthToken>>,
}

impl Caller {
    /// What the credential permits.
    pub fn permissions(&self) -> Permissions {
        match &self.token {
            Some(token) => token.permissions,
            None if self.is_admin => Permissions::all(),
            None => Permissions::of_tenants(),
        }
    }

    /// True where the credential permits it.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions().has(permission)
    }

    /// The realms that this request may see: those of its scope. Empty: all.
    pub fn realms(&self) -> &[RealmId] {
        match (&self.realm, &self.token) {
            (Some(realm), _) => std::slice::from_ref(realm),
            (None, Some(token)) => &token.realms,
            (None, None) => &[],
        }
    }

    /// True where something that belongs to `realms` is in the request's scope. In a realm, only what belongs
    /// to it; outside of one, a token for some realms sees those, and what belongs to none.
    pub fn sees(&self, realms: &[RealmId]) -> bool {
        let scope = self.realms();
        scope.is_empty()
            || realms.iter().any(|realm| scope.contains(realm))
            || (self.realm.is_none() && realms.is_empty())
    }
}

impl Caller {
    /// The account itself, in no realm.
    pub fn of(user: &User) -> Self {
        Self { user: user.id, is_admin: user.is_admin, username: user.username.clone(), realm: None, token: None }
    }
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// What the client calls itself.
    pub client: Option<String>,
}

impl Origin {
    /// The same, with the name that the client gives itself in the request.
    pub fn named(self, client: Option<String>) -> Self {
        Self { client: client.or(self.client), ..self }
    }
}
