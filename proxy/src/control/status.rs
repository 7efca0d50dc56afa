//! How a container's egress is.

use hoody_protocol::{bounded::Text, id::ContainerId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

/// Bytes of an explanation.
pub const MESSAGE_BYTES: usize = 240;

/// One container's egress, as the proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The container.
    pub container: ContainerId,
    /// The revision in force.
    pub revision: u64,
    /// Where its listeners are bound; TCP and UDP have the same address.
    pub listeners: SocketAddrV4,
    /// The upstream.
    pub health: Health,
    /// Since the container was first set.
    pub counters: Counters,
}

/// Whether the upstream works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It has not been tried yet.
    Untried,
    /// It answered the last time.
    Ok,
    /// Connections are refused at once until it is tried again.
    Failing {
        /// What is wrong.
        cause: Cause,
        /// The same for people, without credentials.
        message: Text<MESSAGE_BYTES>,
        /// Milliseconds since the Unix epoch at which it began to fail.
        since_ms: u64,
        /// Milliseconds since the Unix epoch at which it is tried again.
        retry_at_ms: u64,
    },
}

/// Why an upstream cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its name has no address.
    Unresolvable,
    /// Every address of it is one that may not be dialled.
    RefusedAddress,
    /// Nothing listens there, or no route leads there.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
    /// TLS failed, or its certificate is not one for its name.
    CertificateInvalid,
    /// It does not accept the user and password, or asks for some and there are none.
    AuthFailed,
    /// It answered with something else than its kind of proxy does.
    Protocol,
    /// A cause that this program does not know: the peer is newer.
    #[serde(other)]
    Other,
}

impl Cause {
    /// The cause's name on the wire and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unresolvable => "unresolvable",
            Self::RefusedAddress => "refused_address",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::CertificateInvalid => "certificate_invalid",
            Self::AuthFailed => "auth_failed",
            Self::Protocol => "protocol",
            Self::Other => "other",
        }
    }
}

/// What a container's egress did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Connections relayed, with those that are open.
    pub connections: u64,
    /// Connections open now, with those being dialled.
    pub open: u64,
    /// Connections refused: over a limit, the upstream down, the destination refused by the upstream.
    pub refused: u64,
    /// Bytes from the container.
    pub bytes_out: u64,
    /// Bytes to the container.
    pub bytes_in: u64,
    /// DNS queries taken.
    pub dns_queries: u64,
    /// DNS queries answered with SERVFAIL, or not at all.
    pub dns_failures: u64,
    /// UDP packets relayed in either direction, DNS aside.
    pub packets: u64,
    /// UDP packets dropped: no room, no way, no answer to that destination expected.
    pub packets_dropped: u64,
}
