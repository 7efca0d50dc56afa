//! The node's container addresses. Pure: which addresses are in use is the caller's knowledge.
//!
//! The pool goes round its network, so that an address which became free is given again as late as
//! possible: what others remember of it (connections, caches, rules) has the longest time to age.

use ipnet::Ipv4Net;
use std::{collections::HashSet, net::Ipv4Addr};

/// Network, node and broadcast address and five containers: smaller networks are refused.
const MAX_PREFIX_LENGTH: u8 = 29;
/// A larger network than a node could ever use is a mistake in its configuration.
const MIN_PREFIX_LENGTH: u8 = 8;

/// Why there is no pool or no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The network's size is not usable.
    #[error("{0} is not a usable container network: its prefix is /{MIN_PREFIX_LENGTH} to /{MAX_PREFIX_LENGTH}")]
    UnusableNetwork(Ipv4Net),
    /// The network is not made of unicast addresses that a host may have.
    #[error("{0} holds addresses that no container can have")]
    ReservedNetwork(Ipv4Net),
    /// Every address is in use.
    #[error("every address of {0} is in use")]
    Exhausted(Ipv4Net),
}

/// Gives out the addresses of one network.
#[derive(Debug, Clone)]
pub struct AddressPool {
    network: Ipv4Net,
    /// The address given last; the search begins behind it.
    last: u32,
}

impl AddressPool {
    /// A pool over `network`, starting at its beginning.
    pub fn new(network: Ipv4Net) -> Result<Self, AddressError> {
        let network = network.trunc();
        if !(MIN_PREFIX_LENGTH..=MAX_PREFIX_LENGTH).contains(&network.prefix_len()) {
            return Err(AddressError::UnusableNetwork(network));
        }
        for end in [network.network(), network.broadcast()] {
            // 0.0.0.0/8 and 240.0.0.0/4 are no unicast addresses (RFC 6890).
            if end.is_loopback() || end.is_multicast() || end.is_link_local() || matches!(end.octets()[0], 0 | 240..) {
                return Err(AddressError::ReservedNetwork(network));
            }
        }
        Ok(Self { network, last: u32::from(network.network()) + 1 })
    }

    /// Continues behind `last`, for example the address given last before a restart. Ignored where it is
    /// not in the network.
    pub fn resume_after(mut self, last: Ipv4Addr) -> Self {
        if self.contains(last) {
            self.last = last.into();
        }
        self
    }

    /// The next address that is not in `used`.
    pub fn allocate(&mut self, used: &HashSet<Ipv4Addr>) -> Result<Ipv4Addr, AddressError> {
        let (first, end) = (self.first(), u32::from(self.network.broadcast()));
        let found = (self.last + 1..end)
            .chain(first..=self.last.min(end - 1))
            .find(|candidate| !used.contains(&Ipv4Addr::from(*candidate)));
        let found = found.ok_or(AddressError::Exhausted(self.network))?;
        self.last = found;
        Ok(found.into())
    }

    /// True where a container may have this address.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first()..u32::from(self.network.broadcast())).contains(&address.into())
    }

    /// The network.
    pub fn network(&self) -> Ipv4Net {
        self.network
    }

    /// Addresses that containers may have, used or not.
    pub fn capacity(&self) -> u32 {
        u32::from(self.network.broadcast()) - self.first()
    }

    /// Behind the network's own address and the first one, which is kept for the node.
    fn first(&self) -> u32 {
        u32::from(self.network.network()) + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(network: &str) -> AddressPool {
        AddressPool::new(network.parse().unwrap()).unwrap()
    }

    #[test]
    fn network_first_and_broadcast_are_never_given() {
        let mut pool = pool("10.88.0.0/29");
        let mut used = HashSet::new();
        while let Ok(address) = pool.allocate(&used) {
            used.insert(address);
        }
        let mut used: Vec<_> = used.into_iter().collect();
        used.sort();
        let expected: Vec<Ipv4Addr> = (2..=6).map(|last| Ipv4Addr::new(10, 88, 0, last)).collect();
        assert_eq!(used, expected);
        assert_eq!(pool.capacity(), 5);
    }

    #[test]
    fn a_released_address_comes_back_last() {
        let mut pool = pool("10.88.0.0/28");
        let first = pool.allocate(&HashSet::new()).unwrap();
        for _ in 1..pool.capacity() {
            assert_ne!(pool.allocate(&HashSet::new()).unwrap(), first);
        }
        assert_eq!(pool.allocate(&HashSet::new()).unwrap(), first);
    }

    #[test]
    fn host_bits_do_not_matter_and_a_restart_continues() {
        let mut pool = pool("10.88.7.9/16").resume_after("10.88.200.1".parse().unwrap());
        assert_eq!(pool.allocate(&HashSet::new()), Ok("10.88.200.2".parse().unwrap()));
        let mut elsewhere = pool.clone().resume_after("10.99.0.1".parse().unwrap());
        assert_eq!(elsewhere.allocate(&HashSet::new()), Ok("10.88.200.3".parse().unwrap()));
    }

    #[test]
    fn unusable_networks_are_refused() {
        for network in ["10.0.0.0/30", "10.0.0.0/32", "0.0.0.0/0", "10.0.0.0/7"] {
            assert!(
                matches!(AddressPool::new(network.parse().unwrap()), Err(AddressError::UnusableNetwork(_))),
                "{network}"
            );
        }
        for network in ["127.0.0.0/8", "0.0.0.0/8", "224.0.0.0/8", "240.0.0.0/16", "255.255.255.0/24", "169.254.0.0/16"]
        {
            assert!(
                matches!(AddressPool::new(network.parse().unwrap()), Err(AddressError::ReservedNetwork(_))),
                "{network}"
            );
        }
    }

    proptest! {
        /// Whatever is taken and released in whatever order, an address is never given twice, is always
        /// usable, and the pool is exhausted only when every address is taken.
        #[test]
        fn addresses_are_unique_and_usable(prefix in 22u8..=29, start: u32, steps in prop::collection::vec(any::<(bool, u16)>(), 0..400)) {
            let network = Ipv4Net::new(Ipv4Addr::from(0x0A00_0000 | (start & 0x00FF_FFFF)), prefix).unwrap();
            let mut pool = AddressPool::new(network).unwrap().resume_after(Ipv4Addr::from(start));
            let mut used = HashSet::new();
            for (release, which) in steps {
                if release && !used.is_empty() {
                    let victim = *used.iter().nth(usize::from(which) % used.len()).unwrap();
                    used.remove(&victim);
                    continue;
                }
                match pool.allocate(&used) {
                    Ok(address) => {
                        prop_assert!(pool.contains(address));
                        prop_assert!(address != network.network() && address != network.broadcast());
                        prop_assert!(used.insert(address));
                    }
                    Err(_) => prop_assert_eq!(used.len() as u32, pool.capacity()),
                }
            }
        }
    }
}
