//! What somebody is in a pool.

use std::str::FromStr;

/// A role; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Uses the pool's servers.
    User,
    /// Invites and removes users.
    Admin,
    /// Does everything; there is one.
    Owner,
}

/// The text is none of the roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be admin or user")]
pub struct UnknownRole;

impl Role {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    /// The roles that can be given; `member` is another word for `user`.
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "user" | "member" => Ok(Self::User),
            "admin" => Ok(Self::Admin),
            _ => Err(UnknownRole),
        }
    }
}
