//! The text form of the other side: an IPv4 address or CIDR, or a host name.

use hoody_protocol::firewall::{FirewallRule, is_host_name};
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};

/// Longest text of a peer, in characters.
const MAX_TEXT: usize = 512;

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// Every address (`0.0.0.0/0`).
    Any,
    /// These addresses.
    Network(Ipv4Net),
    /// Whatever this name leads to; in lower case and without a dot at its end.
    Host(String),
}

impl Peer {
    /// The other side of this rule.
    pub(super) fn of(rule: &FirewallRule) -> Self {
        match (rule.peer, &rule.host) {
            (_, Some(host)) => Self::Host(host.to_string()),
            (Some(network), None) => Self::Network(network),
            (None, None) => Self::Any,
        }
    }

    /// The rule's two fields for it.
    pub(super) fn parts(self) -> (Option<Ipv4Net>, Option<String>) {
        match self {
            Self::Any => (None, None),
            Self::Network(network) => (Some(network), None),
            Self::Host(host) => (None, Some(host)),
        }
    }
}

/// Why a text is not an address, CIDR or host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerError {
    /// An IPv6 address or CIDR.
    #[error("is IPv6: rules take IPv4 only, and containers have no IPv6")]
    Ipv6,
    /// Anything else.
    #[error(
        "is not an IPv4 address or CIDR such as 203.0.113.7 or 10.0.0.0/8, and no host name such as api.example.com"
    )]
    Malformed,
}

/// Parses an IPv4 address, CIDR or host name. Bits outside the prefix are cleared, as packet filters do.
pub(super) fn parse(text: &str) -> Result<Peer, PeerError> {
    let text = text.trim();
    if text.chars().count() > MAX_TEXT {
        return Err(PeerError::Malformed);
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Peer::Network(Ipv4Net::from(address)));
    }
    if let Ok(net) = text.parse::<Ipv4Net>() {
        return Ok(if net.prefix_len() > 0 { Peer::Network(net.trunc()) } else { Peer::Any });
    }
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    if let Ok(IpAddr::V6(_)) = address.parse::<IpAddr>() {
        return Err(PeerError::Ipv6);
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if is_host_name(&name) { Ok(Peer::Host(name)) } else { Err(PeerError::Malformed) }
}

/// The text of a peer as [`parse`] reads it; a single address without its prefix.
pub fn render(peer: Ipv4Net) -> String {
    if peer.prefix_len() == 32 { peer.addr().to_string() } else { peer.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_and_networks() {
        let rendered = |text| parse(text).unwrap().parts().0.map(render);
        assert_eq!(rendered("203.0.113.7").as_deref(), Some("203.0.113.7"));
        assert_eq!(rendered("10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(rendered("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(parse("0.0.0.0/0"), Ok(Peer::Any));
    }

    #[test]
    fn nonsense_is_told_apart() {
        for text in [
            "",
            "any",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0/8",
            "256.0.0.1",
            "10.0.0.0/8/8",
            "1.2.3.4.5",
            "010.0.0.1",
            "10.0.0.0/",
        ] {
            assert_eq!(parse(text), Err(PeerError::Malformed), "{text:?}");
        }
        for text in ["::1", "2001:db8::/32", "::ffff:10.0.0.1"] {
            assert_eq!(parse(text), Err(PeerError::Ipv6), "{text:?}");
        }
        for (text, name) in
            [("api.example.com", "api.example.com"), ("DB.Internal", "db.internal"), ("example.com.", "example.com")]
        {
            assert_eq!(parse(text), Ok(Peer::Host(name.to_owned())), "{text:?}");
        }
        for text in ["-a.com", "a..com", "not a name.com", "../etc/passwd", "a_b.com"] {
            assert_eq!(parse(text), Err(PeerError::Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn round_trip(address: u32, prefix in 1u8..=32) {
            let net = Ipv4Net::new(Ipv4Addr::from(address), prefix).unwrap().trunc();
            prop_assert_eq!(parse(&render(net)), Ok(Peer::Network(net)));
        }
    }
}
