//! Names and hardware addresses, all derived from the container's id, so that they are the same after
//! a restart and neighbour entries stay valid.

use hoody_protocol::id::ContainerId;
use std::net::Ipv4Addr;

/// The interface's name inside every container.
pub const CONTAINER_INTERFACE: &str = "eth0";

const PREFIX: &str = "hy";
const DIGITS: usize = 12;
const ALIAS_PREFIX: &str = "hoody";

/// The host side's interface name: `hy` and 12 characters derived from the container's id, within the
/// kernel's 15.
pub fn host_interface(id: ContainerId) -> String {
    // The first 4 bytes are a time; the last 6 are random.
    format!("{PREFIX}{}", &id.to_string()[DIGITS..])
}

/// True where the name could be [`host_interface`] of some container.
pub fn is_host_interface(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    })
}

/// Hardware address of the container's side. Frames that the container sends with another source are
/// forged.
pub fn container_mac(id: ContainerId) -> [u8; 6] {
    mac(id, 0b010)
}

/// Hardware address of the host's side.
pub fn host_mac(id: ContainerId) -> [u8; 6] {
    mac(id, 0b110)
}

/// The random end of the id, with the low bits of the first byte set to `kind`: bit 0 clear is unicast,
/// bit 1 set is locally administered (IEEE 802-2014, 8.2), bit 2 tells the sides apart.
fn mac(id: ContainerId, kind: u8) -> [u8; 6] {
    let [.., a, b, c, d, e, f] = *id.as_bytes();
    [(a & !0b111) | kind, b, c, d, e, f]
}

/// The host side's alias, which names the owner in full: the interface's name holds only half of the
/// id.
pub(super) fn alias(id: ContainerId, address: Ipv4Addr) -> String {
    format!("{ALIAS_PREFIX} {id} {address}")
}

/// Reads an [`alias`] back; `None` where it is not one of ours.
pub(super) fn parse_alias(alias: &str) -> Option<(ContainerId, Ipv4Addr)> {
    let mut words = alias.split(' ');
    if words.next() != Some(ALIAS_PREFIX) {
        return None;
    }
    let parsed = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_fit_the_kernel_and_are_recognised(bytes: [u8; 12]) {
            let name = host_interface(ContainerId::from_bytes(bytes));
            prop_assert!(name.len() < libc::IFNAMSIZ);
            prop_assert!(is_host_interface(&name));
        }

        #[test]
        fn hardware_addresses_are_local_unicast_and_differ_between_the_sides(bytes: [u8; 12]) {
            let id = ContainerId::from_bytes(bytes);
            for mac in [container_mac(id), host_mac(id)] {
                prop_assert_eq!(mac[0] & 0b11, 0b10);
            }
            prop_assert_ne!(container_mac(id), host_mac(id));
        }

        #[test]
        fn aliases_round_trip(bytes: [u8; 12], address: u32) {
            let (id, address) = (ContainerId::from_bytes(bytes), Ipv4Addr::from(address));
            prop_assert_eq!(parse_alias(&alias(id, address)), Some((id, address)));
        }

        #[test]
        fn foreign_aliases_are_not_ours(text in ".{0,60}") {
            prop_assert!(parse_alias(&text).is_none() || text.starts_with("hoody "));
        }
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in
            ["", "hy", "eth0", "hy0123456789a", "hy0123456789abc", "hy0123456789AB", "hx0123456789ab", "hy0123456789aß"]
        {
            assert!(!is_host_interface(name), "{name}");
        }
    }
}
