//! Names of what the table holds, and how containers are read from them.

use hoody_protocol::{
    firewall::Action,
    id::{ContainerId, RuleId, UserId},
};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;

/// What the host side interface of every container begins with; no other interface does.
pub(super) const INTERFACE_PREFIX: &str = "hy";
/// Bytes of an interface name in a key, filled up with NUL (`IFNAMSIZ`).
pub(super) const INTERFACE_KEY_BYTES: usize = 16;

/// Set of interface and address: what a container may send from and be sent to.
pub(super) const BINDINGS: &str = "bindings";
/// Map from the interface traffic comes from to the container's egress chain.
pub(super) const EGRESS_MAP: &str = "egress";
/// Map from the interface traffic leaves by to the container's ingress chain.
pub(super) const INGRESS_MAP: &str = "ingress";
/// Set of addresses in which the kernel counts connections.
pub(super) const CONNECTIONS: &str = "connections";

/// Map from the interface traffic comes from to the chain that takes it for the container's proxy.
pub(super) const CAPTURE_MAP: &str = "capture";

const CAPTURE_PREFIX: &str = "via_";
const EGRESS_PREFIX: &str = "out_";
const INGRESS_PREFIX: &str = "in_";
const OWNER_PREFIX: &str = "own_";
const COUNTER_PREFIX: &str = "rule_";
const PORTS_PREFIX: &str = "ports_";
const HOST_PREFIX: &str = "host_";
/// Bytes of the digest in the name of a set of ports or of a host: a tenant must not find two of one name.
const DIGEST_BYTES: usize = 32;

/// Which of a container's chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ChainKind {
    /// What it sends, before it is routed: taken for its proxy. Only where it has one.
    Capture,
    /// What it sends.
    Egress,
    /// What is sent to it.
    Ingress,
}

impl ChainKind {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Capture, Self::Egress, Self::Ingress];

    /// The map that leads to the chains of this kind.
    pub(super) fn map(self) -> &'static str {
        match self {
            Self::Capture => CAPTURE_MAP,
            Self::Egress => EGRESS_MAP,
            Self::Ingress => INGRESS_MAP,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Capture => CAPTURE_PREFIX,
            Self::Egress => EGRESS_PREFIX,
            Self::Ingress => INGRESS_PREFIX,
        }
    }
}

/// What rules that name a host do with what is in a set: each kind has a set of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Purpose {
    /// Let pass.
    Allow,
    /// Let go on what stands, and nothing new: the name led there, and leads elsewhere now.
    Keep,
    /// Drop or reject.
    Refuse,
}

impl Purpose {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 3] = [Self::Allow, Self::Keep, Self::Refuse];
    /// Those into whose sets answers are put as they are.
    pub(super) const ANSWERED: [Self; 2] = [Self::Allow, Self::Refuse];

    /// Of the set that decides on new connections.
    pub(super) fn of(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Drop | Action::Reject => Self::Refuse,
        }
    }
}

/// A container's chain of this kind.
pub(super) fn chain(id: ContainerId, kind: ChainKind) -> String {
    format!("{}{id}", kind.prefix())
}

/// The container whose chain has this name, and which of them it is.
pub(super) fn parse_chain(name: &str) -> Option<(ContainerId, ChainKind)> {
    let found = |kind: ChainKind| Some((name.strip_prefix(kind.prefix())?.parse().ok()?, kind));
    ChainKind::ALL.into_iter().find_map(found)
}

/// The set of the addresses of one owner's containers.
pub(super) fn owner_set(owner: UserId) -> String {
    format!("{OWNER_PREFIX}{owner}")
}

/// The owner whose set has this name.
pub(super) fn parse_owner_set(name: &str) -> Option<UserId> {
    name.strip_prefix(OWNER_PREFIX)?.parse().ok()
}

/// The counter of a container's rule.
pub(super) fn counter(id: ContainerId, rule: RuleId) -> String {
    format!("{COUNTER_PREFIX}{id}_{rule}")
}

/// The container and rule whose counter has this name.
pub(super) fn parse_counter(name: &str) -> Option<(ContainerId, RuleId)> {
    let (id, rule) = name.strip_prefix(COUNTER_PREFIX)?.split_once('_')?;
    Some((id.parse().ok()?, rule.parse().ok()?))
}

/// The set of these ports. It is named by what it holds, so that it never has to be changed and rules
/// with the same list share it.
pub(super) fn port_set(ranges: &[(u16, u16)]) -> String {
    let mut digest = Sha256::new();
    for (first, last) in ranges {
        digest.update(first.to_be_bytes());
        digest.update(last.to_be_bytes());
    }
    format!("{PORTS_PREFIX}{}", hex::encode(&digest.finalize()[..DIGEST_BYTES]))
}

/// True for the name of a set of ports.
pub(super) fn is_port_set(name: &str) -> bool {
    name.starts_with(PORTS_PREFIX)
}

/// The set of the addresses that a host name in a container's rules stands for.
pub(super) fn host_set(id: ContainerId, purpose: Purpose, host: &str) -> String {
    let word = match purpose {
        Purpose::Allow => "allow",
        Purpose::Keep => "keep",
        Purpose::Refuse => "refuse",
    };
    format!("{HOST_PREFIX}{id}_{word}_{}", hex::encode(&Sha256::digest(host)[..DIGEST_BYTES]))
}

/// The container in whose rules the name of this set is.
pub(super) fn parse_host_set(name: &str) -> Option<ContainerId> {
    name.strip_prefix(HOST_PREFIX)?.split_once('_')?.0.parse().ok()
}

/// What the rules do that look into the set of this name.
pub(super) fn purpose_of(host_set: &str) -> Option<Purpose> {
    match host_set.strip_prefix(HOST_PREFIX)?.split('_').nth(1)? {
        "allow" => Some(Purpose::Allow),
        "keep" => Some(Purpose::Keep),
        "refuse" => Some(Purpose::Refuse),
        _ => None,
    }
}

/// An interface name as a key.
pub(super) fn interface_key(interface: &str) -> Vec<u8> {
    let mut key = interface.as_bytes().to_vec();
    key.resize(INTERFACE_KEY_BYTES, 0);
    key
}

/// The interface name in a key.
pub(super) fn parse_interface_key(key: &[u8]) -> Option<String> {
    let name = key.get(..INTERFACE_KEY_BYTES)?.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok().map(str::to_owned)
}

/// An element of [`BINDINGS`].
pub(super) fn binding_key(interface: &str, address: Ipv4Addr) -> Vec<u8> {
    let mut key = interface_key(interface);
    key.extend_from_slice(&address.octets());
    key
}

/// The interface and address of an element of [`BINDINGS`].
pub(super) fn parse_binding_key(key: &[u8]) -> Option<(String, Ipv4Addr)> {
    let octets: [u8; 4] = key.get(INTERFACE_KEY_BYTES..)?.try_into().ok()?;
    Some((parse_interface_key(key)?, octets.into()))
}

/// True where a container's interface may be called so.
pub(super) fn is_interface(name: &str) -> bool {
    name.len() > INTERFACE_PREFIX.len()
        && name.len() < INTERFACE_KEY_BYTES
        && name.starts_with(INTERFACE_PREFIX)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let (id, rule, owner) = (ContainerId::generate(), RuleId::generate(), UserId::generate());
        for kind in ChainKind::ALL {
            assert_eq!(parse_chain(&chain(id, kind)), Some((id, kind)));
        }
        assert_eq!(parse_owner_set(&owner_set(owner)), Some(owner));
        assert_eq!(parse_counter(&counter(id, rule)), Some((id, rule)));
        for purpose in Purpose::ALL {
            let set = host_set(id, purpose, "api.example.com");
            assert_eq!((parse_host_set(&set), purpose_of(&set)), (Some(id), Some(purpose)));
        }
        let address = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(
            parse_binding_key(&binding_key("hy0123456789ab", address)),
            Some(("hy0123456789ab".into(), address))
        );
    }

    #[test]
    fn strangers_names_are_not_taken_for_ours() {
        for name in ["forward", "in_", "out_xyz", "in_0123456789ABCDEF01234567", ""] {
            assert_eq!(parse_chain(name), None, "{name}");
        }
        for name in ["eth0", "hy", "hy0123456789abcd", "hy/../x", "hyä"] {
            assert!(!is_interface(name), "{name}");
        }
    }
}
