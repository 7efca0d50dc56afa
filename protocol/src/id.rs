//! Resource identifiers: 24 lowercase hexadecimal characters, that is 4 bytes of seconds since the
//! Unix epoch followed by 8 random bytes. One newtype per resource, so that a project id cannot be
//! passed where a container id is meant.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Bytes of an identifier.
pub const ID_BYTES: usize = 12;
/// Characters of an identifier in its text form.
pub const ID_CHARS: usize = ID_BYTES * 2;

/// The text is not 24 lowercase hexadecimal characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 24 lowercase hexadecimal characters")]
pub struct InvalidId;

fn parse(text: &str) -> Result<[u8; ID_BYTES], InvalidId> {
    let mut bytes = [0; ID_BYTES];
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(InvalidId);
    }
    hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId)?;
    Ok(bytes)
}

fn generate() -> [u8; ID_BYTES] {
    let mut bytes: [u8; ID_BYTES] = rand::random();
    let seconds = (crate::time::now_ms() / 1000) as u32;
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    bytes
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// A new identifier: the current second and 8 random bytes.
            pub fn generate() -> Self {
                Self(generate())
            }

            /// The identifier made of these bytes, for tests and derived names.
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            /// The identifier's bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("24 lowercase hexadecimal characters")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    )+};
}

ids! {
    /// An account.
    UserId;
    /// A project: the owner's grouping of containers.
    ProjectId;
    /// A container.
    ContainerId;
    /// A rented server; also the identity of the node agent on it.
    ServerId;
    /// An image of the catalogue.
    ImageId;
    /// An operation on a container (restart, snapshot, …).
    OperationId;
    /// A firewall rule; stable across toggles, so that its counters can be accumulated.
    RuleId;
    /// A row of a container's status log.
    StatusLogId;
    /// A tenancy realm.
    RealmId;
    /// A join token.
    JoinTokenId;
    /// A login session: the family of a refresh token.
    SessionId;
    /// One HTTP request.
    RequestId;
    /// An auth token of a user.
    AuthTokenId;
    /// One user's permission in one project.
    ProjectPermissionId;
    /// A pool: servers that several users share. A user's default pool has the user's own id.
    PoolId;
    /// A membership in a pool, or an invitation to one.
    PoolMemberId;
    /// An event of the record.
    EventId;
    /// A row of the activity log.
    ActivityId;
    /// A notification.
    NotificationId;
    /// A terminal in a container.
    TerminalId;
    /// A command of the catalogue of what can be run on servers.
    CommandId;
    /// One run of a command on a server.
    ExecutionId;
    /// A folder of one container that others may mount.
    ShareId;
    /// Whether one container takes a share.
    ShareChoiceId;
    /// A snapshot of a container.
    SnapshotId;
    /// A transfer of a container's file system to another server.
    TransferId;
    /// An export of a container, for as long as it is read.
    ExportId;
    /// A move of a container to another server.
    MoveId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_24_lowercase_hex_and_round_trips() {
        let id = ContainerId::generate();
        let text = id.to_string();
        assert_eq!(text.len(), ID_CHARS);
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "abc", "0123456789ABCDEF01234567", "0123456789abcdef0123456g", "0123456789abcdef012345678"] {
            assert_eq!(text.parse::<ContainerId>(), Err(InvalidId), "{text:?}");
        }
    }

    #[test]
    fn begins_with_the_current_second() {
        let before = (crate::time::now_ms() / 1000) as u32;
        let id = ContainerId::generate();
        let seconds = u32::from_be_bytes(id.as_bytes()[..4].try_into().unwrap());
        assert!(seconds >= before && seconds <= before + 2);
    }
}
