//! Who asks for something, for every layer that decides by it.

use crate::store::user::User;
use hoody_protocol::id::{RealmId, UserId};
use std::net::IpAddr;

/// An authenticated user.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account.
    pub user: UserId,
    /// May use the admin API.
    pub is_admin: bool,
    /// The account's name.
    pub username: String,
    /// The realm that the request is scoped to.
    pub realm: Option<RealmId>,
}

impl Caller {
    /// The account itself, in no realm.
    pub fn of(user: &User) -> Self {
        Self { user: user.id, is_admin: user.is_admin, username: user.username.clone(), realm: None }
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
