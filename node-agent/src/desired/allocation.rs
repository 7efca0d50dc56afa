//! Who holds which address and which range of user ids on this node. Taken when a container's record
//! is made, given back when it is removed.
//!
//! A container whose record is damaged, or that is on the server without one, still holds what it has: that is
//! reserved for it, and becomes its own again when its record is made anew.

use super::DesiredError;
use crate::{network::AddressPool, storage::IdRange};
use hoody_protocol::id::ContainerId;
use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Ranges of ids that are given out: 4,096 containers on one node.
const RANGES: u32 = 4096;

/// The node's addresses and id ranges.
#[derive(Debug)]
pub struct Allocation {
    first_id: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: AddressPool,
    addresses: HashSet<Ipv4Addr>,
    ranges: HashSet<u32>,
    next_range: u32,
    /// What containers without a record hold.
    reserved: HashMap<ContainerId, Reserved>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Reserved {
    address: Option<Ipv4Addr>,
    ids: Option<IdRange>,
}

impl Allocation {
    /// Nothing taken yet.
    pub fn new(pool: AddressPool, first_id: u32) -> Self {
        let inner =
            Inner { pool, addresses: HashSet::new(), ranges: HashSet::new(), next_range: 0, reserved: HashMap::new() };
        Self { first_id, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks what a loaded record holds as taken; false where another container holds any of it.
    pub fn adopt(&self, id: ContainerId, address: Ipv4Addr, ids: IdRange) -> bool {
        let mut inner = self.lock();
        let own = inner.reserved.remove(&id).unwrap_or_default();
        let address_is_free = inner.addresses.insert(address) || own.address == Some(address);
        let ids_are_free = inner.ranges.insert(ids.first) || own.ids == Some(ids);
        address_is_free && ids_are_free
    }

    /// Keeps what a container without a record holds from others; what is said first stays.
    pub fn reserve(&self, id: ContainerId, address: Option<Ipv4Addr>, ids: Option<IdRange>) {
        let mut inner = self.lock();
        let before = inner.reserved.get(&id).copied().unwrap_or_default();
        let now = Reserved { address: before.address.or(address), ids: before.ids.or(ids) };
        inner.reserved.insert(id, now);
        inner.addresses.extend(now.address);
        inner.ranges.extend(now.ids.map(|ids| ids.first));
    }

    /// Takes the address and range reserved for the container, or free ones.
    pub fn take(&self, id: ContainerId) -> Result<(Ipv4Addr, IdRange), DesiredError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let reserved = inner.reserved.get(&id).copied().unwrap_or_default();
        let ids = match reserved.ids {
            Some(ids) => ids,
            None => {
                let first = (0..RANGES)
                    .map(|step| (inner.next_range + step) % RANGES)
                    .filter_map(|range| self.first_id.checked_add(range * IdRange::LENGTH))
                    .find(|first| !inner.ranges.contains(first))
                    .ok_or(DesiredError::IdsExhausted)?;
                inner.next_range = (first - self.first_id) / IdRange::LENGTH + 1;
                IdRange { first }
            }
        };
        let address = match reserved.address {
            Some(address) => address,
            None => inner.pool.allocate(&inner.addresses).map_err(DesiredError::Address)?,
        };
        inner.reserved.remove(&id);
        inner.addresses.insert(address);
        inner.ranges.insert(ids.first);
        Ok((address, ids))
    }

    /// Gives both back.
    pub fn release(&self, address: Ipv4Addr, ids: IdRange) {
        let mut inner = self.lock();
        inner.addresses.remove(&address);
        inner.ranges.remove(&ids.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ContainerId = ContainerId::from_bytes([1; 12]);
    const TWO: ContainerId = ContainerId::from_bytes([2; 12]);

    fn allocation() -> Allocation {
        Allocation::new(AddressPool::new("10.9.0.0/29".parse().unwrap()).unwrap(), 1 << 20)
    }

    #[test]
    fn what_is_reserved_is_given_to_its_container_alone() {
        let (first, second) = (allocation(), allocation());
        let (address, ids) = first.take(ONE).unwrap();
        second.reserve(ONE, Some(address), None);
        second.reserve(ONE, None, Some(ids));
        let other = second.take(TWO).unwrap();
        assert!(other.0 != address && other.1 != ids, "{other:?}");
        assert_eq!(second.take(ONE).unwrap(), (address, ids));
        second.release(address, ids);
    }

    #[test]
    fn a_record_confirms_what_is_reserved_for_it_and_a_second_holder_is_noticed() {
        let allocation = allocation();
        let (address, ids) = (Ipv4Addr::new(10, 9, 0, 3), IdRange { first: 1 << 20 });
        allocation.reserve(ONE, Some(address), Some(ids));
        assert!(allocation.adopt(ONE, address, ids));
        assert!(!allocation.adopt(TWO, address, IdRange { first: 1 << 24 }));
        assert!(!allocation.adopt(TWO, Ipv4Addr::new(10, 9, 0, 4), ids));
    }
}
