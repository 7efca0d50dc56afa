//! The text form of the other side's addresses: an IPv4 address or CIDR.

use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};

/// Longest text of a peer, in characters.
const MAX_TEXT: usize = 512;

/// Why a text is not an address or CIDR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerError {
    /// An IPv6 address or CIDR.
    #[error("is IPv6: rules take IPv4 only, and containers have no IPv6")]
    Ipv6,
    /// A host name.
    #[error("is a host name: give an IPv4 address or CIDR such as 10.0.0.0/8")]
    HostName,
    /// Anything else.
    #[error("is not an IPv4 address or CIDR such as 203.0.113.7 or 10.0.0.0/8")]
    Malformed,
}

/// Parses an IPv4 address or CIDR. `None` is every address (`0.0.0.0/0`). Bits outside the prefix are
/// cleared, as packet filters do.
pub(super) fn parse(text: &str) -> Result<Option<Ipv4Net>, PeerError> {
    let text = text.trim();
    if text.chars().count() > MAX_TEXT {
        return Err(PeerError::Malformed);
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Some(Ipv4Net::from(address)));
    }
    if let Ok(net) = text.parse::<Ipv4Net>() {
        return Ok((net.prefix_len() > 0).then(|| net.trunc()));
    }
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    Err(match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => PeerError::Ipv6,
        _ if is_host_name(text) => PeerError::HostName,
        _ => PeerError::Malformed,
    })
}

/// True for a dotted name of DNS labels whose last one begins with a letter (RFC 1123, RFC 3696 2).
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let mut labels = text.trim_end_matches('.').split('.').rev();
    let last_is_a_word =
        labels.next().is_some_and(|last| label(last) && last.starts_with(|c: char| c.is_ascii_alphabetic()));
    let mut others = labels.peekable();
    last_is_a_word && others.peek().is_some() && others.all(label)
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
        assert_eq!(parse("203.0.113.7").unwrap().map(render).as_deref(), Some("203.0.113.7"));
        assert_eq!(parse("10.0.0.0/8").unwrap().map(render).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(parse("10.1.2.3/8").unwrap().map(render).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(parse("0.0.0.0/0"), Ok(None));
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
        for text in ["api.example.com", "db.internal", "example.com."] {
            assert_eq!(parse(text), Err(PeerError::HostName), "{text:?}");
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
            prop_assert_eq!(parse(&render(net)), Ok(Some(net)));
        }
    }
}
