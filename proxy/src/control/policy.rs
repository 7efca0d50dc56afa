//! What the proxy does for one container.

use hoody_protocol::{
    address::DialRules,
    bounded::{List, Text},
    id::ContainerId,
};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{fmt, net::IpAddr, net::Ipv4Addr};
use zeroize::Zeroizing;

/// Bytes of the longest host name (RFC 1035).
pub const HOST_BYTES: usize = 253;
/// Bytes of the longest user name and password (RFC 1929).
pub const CREDENTIAL_BYTES: usize = 255;
/// Name servers of a container.
pub const DNS_SERVERS: usize = 4;
/// Ranges in each list of a policy.
pub const RANGES: usize = 128;

/// A container and what holds for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// The container.
    pub container: ContainerId,
    /// Its address: connections and packets from any other one are refused.
    pub address: Ipv4Addr,
    /// The agent's number for this content, given back in the status; the proxy does not compare it.
    pub revision: u64,
    /// What holds.
    pub policy: Policy,
}

/// Where a container's connections go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The proxy through which everything goes.
    pub upstream: Upstream,
    /// Name servers, asked in this order, through the upstream. Without any, each query goes to the server that the
    /// container asked, through the upstream, where its address is public.
    #[serde(default)]
    pub dns_servers: List<IpAddr, DNS_SERVERS>,
    /// Ranges that are not public and may be dialled all the same: the operator's.
    #[serde(default)]
    pub allowed: List<IpNet, RANGES>,
    /// The platform's own addresses, never dialled.
    #[serde(default)]
    pub own: List<IpNet, RANGES>,
}

/// A proxy of the tenant's choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// How it is spoken to.
    pub kind: UpstreamKind,
    /// A name or an address.
    pub host: Text<HOST_BYTES>,
    /// Not 0.
    pub port: u16,
    /// User and password, where it asks for them.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// The name that its certificate must have; `host` where absent. For `https` only.
    #[serde(default)]
    pub server_name: Option<Text<HOST_BYTES>>,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    /// SOCKS5 (RFC 1928).
    Socks5,
    /// HTTP CONNECT.
    Http,
    /// HTTP CONNECT within TLS.
    Https,
}

/// A user and its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user; for HTTP without `:`.
    pub user: Secret,
    /// The password.
    pub password: Secret,
}

/// A text of at most [`CREDENTIAL_BYTES`] that is not shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// Why a policy cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Empty, or with characters that are in no host name.
    #[error("the host is not a name or an address")]
    Host,
    /// Port 0.
    #[error("the port is 0")]
    Port,
    /// The name for the certificate is not one.
    #[error("the server name is not a name or an address")]
    ServerName,
    /// Empty where the kind of upstream cannot say so, or with characters that end a header.
    #[error("user or password cannot be sent to this kind of upstream")]
    Credentials,
}

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Secret {
    type Error = hoody_protocol::bounded::TooLong;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = Zeroizing::new(text);
        let max = CREDENTIAL_BYTES;
        if text.len() > max { Err(hoody_protocol::bounded::TooLong { max }) } else { Ok(Self(text)) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.reveal())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Policy {
    /// Whether the proxy can work with it.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let upstream = &self.upstream;
        if !is_host(&upstream.host) {
            return Err(InvalidPolicy::Host);
        }
        if upstream.port == 0 {
            return Err(InvalidPolicy::Port);
        }
        if upstream.server_name.as_deref().is_some_and(|name| !is_host(name)) {
            return Err(InvalidPolicy::ServerName);
        }
        let fits = |credentials: &Credentials| match upstream.kind {
            // Both are of 1 to 255 bytes on the wire.
            UpstreamKind::Socks5 => !credentials.user.0.is_empty() && !credentials.password.0.is_empty(),
            UpstreamKind::Http | UpstreamKind::Https => {
                !credentials.user.0.contains(|c: char| c == ':' || c.is_control())
                    && !credentials.password.0.contains(char::is_control)
            }
        };
        if upstream.credentials.as_ref().is_some_and(|credentials| !fits(credentials)) {
            return Err(InvalidPolicy::Credentials);
        }
        Ok(())
    }

    /// Which addresses may be dialled.
    pub fn dial_rules(&self) -> DialRules {
        DialRules { allowed: self.allowed.to_vec(), own: self.own.to_vec() }
    }
}

/// A host name or an address, by its characters.
fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
        || !text.is_empty()
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}
