//! A container's egress beyond its firewall: everything through an upstream proxy, or nothing at all.
//!
//! Semantics: with [`EgressSpec::Block`] nothing leaves the container but replies to permitted ingress. With
//! [`EgressSpec::Proxy`] TCP, DNS and (where the upstream takes it) UDP leave through the upstream, and
//! everything else is dropped; where the upstream cannot be used, nothing leaves. Firewall rules are asked
//! besides, with the destination that the container named.

use crate::{
    bounded::{List, Text},
    container::{Cause, MAX_DNS_SERVERS},
};
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr};

/// Networks beyond the public internet that an operator can allow hosts which tenants name to be in.
pub const MAX_ALLOWED_NETWORKS: usize = 32;

/// What leaves a container, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressSpec {
    /// Nothing.
    Block,
    /// Through this upstream.
    Proxy(Upstream),
}

/// A proxy of the owner's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// How it is spoken to.
    pub kind: UpstreamKind,
    /// Its host: a name or an address. Names are resolved at every dial.
    pub host: Text<253>,
    /// Its port.
    pub port: u16,
    /// What it is told who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Name servers that are asked through it; empty: the relay's default.
    #[serde(default)]
    pub dns: List<Ipv4Addr, MAX_DNS_SERVERS>,
}

/// The protocol of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    /// SOCKS version 5 (RFC 1928, RFC 1929).
    Socks5,
    /// HTTP CONNECT (RFC 9110).
    Http,
    /// HTTP CONNECT over TLS, the certificate being that of the host.
    Https,
}

/// User name and password for an upstream. Never shown, also not to logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user's name.
    pub username: Text<255>,
    /// The password.
    pub password: Text<255>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl EgressSpec {
    /// The upstream's credentials, where it has some.
    pub fn credentials(&self) -> Option<&Credentials> {
        match self {
            Self::Block => None,
            Self::Proxy(upstream) => upstream.credentials.as_ref(),
        }
    }

    /// The same without credentials.
    pub fn without_credentials(&self) -> Self {
        match self {
            Self::Block => Self::Block,
            Self::Proxy(upstream) => Self::Proxy(Upstream { credentials: None, ..upstream.clone() }),
        }
    }

    /// What is wrong with it, for people.
    pub fn check(&self) -> Result<(), &'static str> {
        let Self::Proxy(upstream) = self else { return Ok(()) };
        if upstream.port == 0 {
            return Err("an upstream's port is from 1 to 65535");
        }
        if !is_host(&upstream.host) {
            return Err("an upstream's host is neither a name nor an address");
        }
        // RFC 1929 gives both lengths a byte, of which 0 is none; a colon would end the name in RFC 7617.
        let control = |text: &str| text.chars().any(char::is_control);
        match &upstream.credentials {
            Some(given) if given.username.is_empty() || given.username.contains(':') || control(&given.username) => {
                Err("an upstream's user name is malformed")
            }
            Some(given) if given.password.is_empty() || control(&given.password) => {
                Err("an upstream's password is malformed")
            }
            _ => Ok(()),
        }
    }
}

/// True for an address, or a name of DNS labels (RFC 1123).
pub fn is_host(host: &str) -> bool {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // What ends in a number and is no address would be read as one by some resolvers.
    let last_is_a_word = name.rsplit('.').next().is_some_and(|last| last.bytes().any(|byte| !byte.is_ascii_digit()));
    host.len() <= 253 && last_is_a_word && name.split('.').all(label)
}

/// How a container's egress fares, as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressStatus {
    /// True where it does what was asked: blocks, or its upstream can be used.
    pub working: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(host: &str, port: u16, credentials: Option<(&str, &str)>) -> EgressSpec {
        let credentials = credentials.map(|(username, password)| Credentials {
            username: Text::truncated(username),
            password: Text::truncated(password),
        });
        EgressSpec::Proxy(Upstream {
            kind: UpstreamKind::Socks5,
            host: Text::truncated(host),
            port,
            credentials,
            dns: List::default(),
        })
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for host in ["proxy.example.com", "proxy", "192.0.2.7", "2001:db8::1", "a_b.example", "example.com."] {
            assert_eq!(proxy(host, 1080, None).check(), Ok(()), "{host}");
        }
        for host in ["", ".", "a..b", "-a.com", "1.2.3", "256.1.1.1", "a b", "a/b", "a:1", "[::1]", "a\n"] {
            assert!(proxy(host, 1080, None).check().is_err(), "{host:?}");
        }
        assert!(proxy("a.example", 0, None).check().is_err());
        assert_eq!(EgressSpec::Block.check(), Ok(()));
    }

    #[test]
    fn credentials_are_bounded_and_never_shown() {
        let good = proxy("a.example", 1, Some(("user", "p:ss")));
        assert_eq!(good.check(), Ok(()));
        assert!(!format!("{good:?}").contains("p:ss") && !format!("{good:?}").contains("user"));
        assert_eq!(good.without_credentials(), proxy("a.example", 1, None));
        for bad in [("", "x"), ("a:b", "x"), ("a\n", "x"), ("a", ""), ("a", "\r\n")] {
            assert!(proxy("a.example", 1, Some(bad)).check().is_err(), "{bad:?}");
        }
    }
}
