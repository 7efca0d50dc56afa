//! Who asks for something, for every layer that decides by it.

use hoody_protocol::id::{RealmId, UserId};

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
