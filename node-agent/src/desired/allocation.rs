//! Who holds which address and which range of user ids on this node. Taken when a container's record
//! is made, given back when it is removed.

use super::DesiredError;
use crate::{network::AddressPool, storage::IdRange};
use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
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
}

impl Allocation {
    /// Nothing taken yet.
    pub fn new(pool: AddressPool, first_id: u32) -> Self {
        let inner = Inner { pool, addresses: HashSet::new(), ranges: HashSet::new(), next_range: 0 };
        Self { first_id, inner: Mutex::new(inner) }
    }

    /// Marks what a loaded record holds as taken.
    pub fn adopt(&self, address: Ipv4Addr, ids: IdRange) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.addresses.insert(address);
        inner.ranges.insert(ids.first);
    }

    /// Takes a free address and a free range.
    pub fn take(&self) -> Result<(Ipv4Addr, IdRange), DesiredError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let ids = (0..RANGES)
            .map(|step| (inner.next_range + step) % RANGES)
            .filter_map(|range| self.first_id.checked_add(range * IdRange::LENGTH))
            .find(|first| !inner.ranges.contains(first))
            .ok_or(DesiredError::IdsExhausted)?;
        let address = inner.pool.allocate(&inner.addresses).map_err(DesiredError::Address)?;
        inner.addresses.insert(address);
        inner.ranges.insert(ids);
        inner.next_range = (ids - self.first_id) / IdRange::LENGTH + 1;
        Ok((address, IdRange { first: ids }))
    }

    /// Gives both back.
    pub fn release(&self, address: Ipv4Addr, ids: IdRange) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.addresses.remove(&address);
        inner.ranges.remove(&ids.first);
    }
}
