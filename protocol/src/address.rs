//! Which addresses may be dialled when somebody else named the host: a tenant's proxy, registry or key URL.
//!
//! The check is made on what a name resolved to, and the address that passed is the one that is dialled:
//! between a check and a second resolution the answer may change.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, where it is not one of the public internet. The ranges are those of IANA's special-purpose
/// registries that are not globally reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotPublic {
    /// `0.0.0.0/8`, `::`.
    #[error("an unspecified address")]
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    #[error("a loopback address")]
    Loopback,
    /// RFC 1918, `fc00::/7`, `fec0::/10`.
    #[error("a private address")]
    Private,
    /// `100.64.0.0/10`, the space between carriers and their customers.
    #[error("an address of carrier-grade NAT")]
    SharedSpace,
    /// `169.254.0.0/16`, `fe80::/10`; metadata services of clouds are there.
    #[error("a link-local address")]
    LinkLocal,
    /// `224.0.0.0/4`, `ff00::/8`, the broadcast address.
    #[error("a multicast or broadcast address")]
    Multicast,
    /// Documentation, benchmarks, protocol assignments, reserved for the future, discarded, tunnelled.
    #[error("a reserved address")]
    Reserved,
    /// One of the platform's own.
    #[error("an address of the platform")]
    Platform,
}

const RESERVED_V4: [Ipv4Net; 8] = [
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 31, 196, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];
const SHARED_SPACE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
const NOWHERE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8);
/// What is routed on the internet at all; everything else is reserved.
const GLOBAL_UNICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const RESERVED_V6: [Ipv6Net; 2] = [
    // Protocol assignments, among them Teredo, which carries IPv4 addresses.
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
const DOCUMENTATION_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32);
const SITE_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10);
/// Prefixes behind which an IPv4 address is reached: NAT64 and 6to4. The address is that of the byte offset.
const TRANSLATED: [(Ipv6Net, usize); 2] = [
    (Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96), 12),
    (Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), 2),
];

/// Whether an address is one of the public internet. IPv6 addresses that carry an IPv4 address are judged by it.
pub fn is_public(address: IpAddr) -> Result<(), NotPublic> {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> Result<(), NotPublic> {
    if NOWHERE.contains(&address) {
        Err(NotPublic::Unspecified)
    } else if address.is_loopback() {
        Err(NotPublic::Loopback)
    } else if address.is_private() {
        Err(NotPublic::Private)
    } else if SHARED_SPACE.contains(&address) {
        Err(NotPublic::SharedSpace)
    } else if address.is_link_local() {
        Err(NotPublic::LinkLocal)
    } else if address.is_multicast() || address.is_broadcast() {
        Err(NotPublic::Multicast)
    } else if RESERVED_V4.iter().any(|range| range.contains(&address)) {
        Err(NotPublic::Reserved)
    } else {
        Ok(())
    }
}

fn is_public_v6(address: Ipv6Addr) -> Result<(), NotPublic> {
    let octets = address.octets();
    for (prefix, offset) in TRANSLATED {
        if prefix.contains(&address) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|byte| octets[offset + byte]);
            return is_public_v4(Ipv4Addr::new(a, b, c, d));
        }
    }
    if address.is_unspecified() {
        Err(NotPublic::Unspecified)
    } else if address.is_loopback() {
        Err(NotPublic::Loopback)
    } else if address.is_unique_local() || SITE_LOCAL.contains(&address) {
        Err(NotPublic::Private)
    } else if address.is_unicast_link_local() {
        Err(NotPublic::LinkLocal)
    } else if address.is_multicast() {
        Err(NotPublic::Multicast)
    } else if !GLOBAL_UNICAST.contains(&address)
        || DOCUMENTATION_V6.contains(&address)
        || RESERVED_V6.iter().any(|range| range.contains(&address))
    {
        Err(NotPublic::Reserved)
    } else {
        Ok(())
    }
}

/// Which addresses may be dialled: the public ones that are not the platform's, and what the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DialRules {
    /// Ranges that are not public and may be dialled all the same. The operator's, never a tenant's.
    pub allowed: Vec<IpNet>,
    /// The platform's own addresses: the servers', the control plane's, the containers'. Closed also where they
    /// are public or within an allowed range.
    pub own: Vec<IpNet>,
}

impl DialRules {
    /// Whether `address` may be dialled. IPv4-mapped addresses are judged, and must be dialled, as IPv4.
    pub fn check(&self, address: IpAddr) -> Result<(), NotPublic> {
        let address = address.to_canonical();
        if self.own.iter().any(|range| range.contains(&address)) {
            return Err(NotPublic::Platform);
        }
        is_public(address)
            .or_else(|why| if self.allowed.iter().any(|range| range.contains(&address)) { Ok(()) } else { Err(why) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(address: &str) -> Result<(), NotPublic> {
        is_public(address.parse().unwrap())
    }

    #[test]
    fn what_is_routed_on_the_internet_is_public() {
        for address in [
            "1.1.1.1",
            "9.9.9.9",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "193.0.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "64:ff9b::101:101",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(judge(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn everything_else_is_named_for_what_it_is() {
        use NotPublic::*;
        for (address, what) in [
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("::", Unspecified),
            ("127.0.0.1", Loopback),
            ("127.255.0.1", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("fc00::1", Private),
            ("fdff::1", Private),
            ("fec0::1", Private),
            ("::ffff:10.0.0.1", Private),
            ("64:ff9b::a00:1", Private),
            ("2002:a00:1::1", Private),
            ("64:ff9b::a9fe:a9fe", LinkLocal),
            ("100.64.0.1", SharedSpace),
            ("100.127.255.255", SharedSpace),
            ("169.254.169.254", LinkLocal),
            ("fe80::1", LinkLocal),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("255.255.255.255", Multicast),
            ("ff02::1", Multicast),
            ("192.0.0.192", Reserved),
            ("192.0.2.1", Reserved),
            ("198.18.0.1", Reserved),
            ("198.19.255.255", Reserved),
            ("198.51.100.1", Reserved),
            ("203.0.113.1", Reserved),
            ("240.0.0.1", Reserved),
            ("255.255.255.254", Reserved),
            ("2001:db8::1", Reserved),
            ("2001::1", Reserved),
            ("3fff::1", Reserved),
            ("100::1", Reserved),
            ("::1.2.3.4", Reserved),
            ("64:ff9b:1::1", Reserved),
            ("4000::1", Reserved),
        ] {
            assert_eq!(judge(address), Err(what), "{address}");
        }
    }

    #[test]
    fn the_operator_opens_ranges_and_nothing_opens_the_platforms_own() {
        let rules = DialRules {
            allowed: vec!["10.1.0.0/16".parse().unwrap()],
            own: vec!["10.1.2.0/24".parse().unwrap(), "8.8.8.8/32".parse().unwrap()],
        };
        let check = |address: &str| rules.check(address.parse().unwrap());
        assert_eq!(check("10.1.1.1"), Ok(()));
        assert_eq!(check("::ffff:10.1.1.1"), Ok(()));
        assert_eq!(check("10.2.0.1"), Err(NotPublic::Private));
        assert_eq!(check("10.1.2.3"), Err(NotPublic::Platform));
        assert_eq!(check("8.8.8.8"), Err(NotPublic::Platform));
        assert_eq!(check("::ffff:8.8.8.8"), Err(NotPublic::Platform));
        assert_eq!(check("8.8.4.4"), Ok(()));
    }
}
