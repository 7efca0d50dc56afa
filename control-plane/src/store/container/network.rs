//! A container's network configuration as its owner gave it, credentials aside; in force only while started.

use hoody_protocol::egress::UpstreamKind;
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// What it does.
    pub kind: NetworkKind,
    /// Host and port of the upstream; none for `block`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<(String, u16)>,
    /// The upstream as its owner wrote it, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Name servers that are asked through the upstream.
    #[serde(default)]
    pub dns_servers: Vec<Ipv4Addr>,
    /// Where the upstream is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its city.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// The owner's remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When it was last changed.
    pub configured_at: i64,
    /// Whether it is asked for.
    pub state: NetworkState,
}

/// What a configuration does, in the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// Everything through a SOCKS5 proxy.
    Socks5,
    /// Everything through an HTTP proxy.
    Http,
    /// Everything through an HTTP proxy over TLS.
    Https,
    /// Nothing leaves.
    Block,
}

impl NetworkKind {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5",
            Self::Http => "http",
            Self::Https => "https",
            Self::Block => "block",
        }
    }

    /// The kind of upstream; none for `block`.
    pub fn upstream(self) -> Option<UpstreamKind> {
        match self {
            Self::Socks5 => Some(UpstreamKind::Socks5),
            Self::Http => Some(UpstreamKind::Http),
            Self::Https => Some(UpstreamKind::Https),
            Self::Block => None,
        }
    }

    /// The kind that has this upstream.
    pub fn of(kind: UpstreamKind) -> Self {
        match kind {
            UpstreamKind::Socks5 => Self::Socks5,
            UpstreamKind::Http => Self::Http,
            UpstreamKind::Https => Self::Https,
        }
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NetworkKind {
    type Err = &'static str;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let kinds = [Self::Socks5, Self::Http, Self::Https, Self::Block];
        kinds.into_iter().find(|kind| kind.as_str() == word).ok_or("must be socks5, http, https or block")
    }
}

/// Whether a configuration is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkState {
    /// Not yet.
    Configured,
    /// Yes.
    Started,
    /// Not any more.
    Stopped,
}
