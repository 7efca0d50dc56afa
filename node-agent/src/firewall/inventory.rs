//! What the table holds, container by container.
//!
//! Read from the kernel once after a start and whenever the kernel contradicts it; kept up to date by
//! every transaction in between, so that a change never has to list the table.

use super::{
    error::FirewallError,
    names::{self, BINDINGS, ChainKind},
    netlink::connection::Connection,
    read,
};
use hoody_protocol::id::{ContainerId, RuleId, UserId};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

/// One container's part of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Installed {
    /// Which of its chains stand.
    pub(super) chains: BTreeSet<ChainKind>,
    /// The interfaces that lead to its chains.
    pub(super) interfaces: BTreeSet<(ChainKind, String)>,
    /// Interface and address of it.
    pub(super) bindings: BTreeSet<(String, Ipv4Addr)>,
    /// The owners' sets that its address is in.
    pub(super) owners: BTreeSet<(UserId, Ipv4Addr)>,
    /// The rules that have a counter.
    pub(super) counters: BTreeSet<RuleId>,
    /// Names of the sets of addresses of hosts in its rules.
    pub(super) hosts: BTreeSet<String>,
}

/// Everything in the table.
#[derive(Debug, Clone, Default)]
pub(super) struct Inventory {
    /// True where the base's sets stand.
    pub(super) prepared: bool,
    /// By container.
    pub(super) containers: HashMap<ContainerId, Installed>,
    /// Sets of owners, with the addresses in them.
    pub(super) owners: BTreeMap<UserId, BTreeSet<Ipv4Addr>>,
    /// Names of the sets of ports.
    pub(super) port_sets: BTreeSet<String>,
    /// Bindings that belong to no container.
    pub(super) stray_bindings: BTreeSet<(String, Ipv4Addr)>,
}

impl Installed {
    /// The addresses it has, or had.
    pub(super) fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.bindings
            .iter()
            .map(|(_, address)| *address)
            .chain(self.owners.iter().map(|(_, address)| *address))
            .collect()
    }
}

impl Inventory {
    /// Reads the table.
    pub(super) fn load(connection: &mut Connection, table: &str) -> Result<Self, FirewallError> {
        let mut inventory = Self::default();
        for name in read::chain_names(connection, table)? {
            if let Some((id, kind)) = names::parse_chain(&name) {
                inventory.container(id).chains.insert(kind);
            }
        }
        let sets = read::set_names(connection, table)?;
        inventory.prepared = super::table::BASE_SETS.iter().all(|(name, _)| sets.iter().any(|set| set == name));
        inventory.port_sets = sets.iter().filter(|name| names::is_port_set(name)).cloned().collect();
        for set in &sets {
            if let Some(id) = names::parse_host_set(set) {
                inventory.container(id).hosts.insert(set.clone());
            }
        }
        let mut by_interface = HashMap::new();
        for kind in ChainKind::ALL {
            for (key, chain) in read::elements(connection, table, kind.map())? {
                let Some(interface) = names::parse_interface_key(&key) else { continue };
                if let Some((id, _)) = chain.as_deref().and_then(names::parse_chain) {
                    by_interface.insert(interface.clone(), id);
                    inventory.container(id).interfaces.insert((kind, interface));
                }
            }
        }
        let mut by_address = HashMap::new();
        for (key, _) in read::elements(connection, table, BINDINGS)? {
            let Some((interface, address)) = names::parse_binding_key(&key) else { continue };
            match by_interface.get(&interface) {
                Some(id) => {
                    by_address.insert(address, *id);
                    inventory.container(*id).bindings.insert((interface, address));
                }
                None => _ = inventory.stray_bindings.insert((interface, address)),
            }
        }
        for (owner, set) in sets.iter().filter_map(|set| Some((names::parse_owner_set(set)?, set))) {
            let mut addresses = BTreeSet::new();
            for (key, _) in read::elements(connection, table, set)? {
                let Ok(octets) = <[u8; 4]>::try_from(key.as_slice()) else { continue };
                let address = Ipv4Addr::from(octets);
                addresses.insert(address);
                if let Some(id) = by_address.get(&address) {
                    inventory.container(*id).owners.insert((owner, address));
                }
            }
            inventory.owners.insert(owner, addresses);
        }
        for name in read::counter_names(connection, table)? {
            if let Some((id, rule)) = names::parse_counter(&name) {
                inventory.container(id).counters.insert(rule);
            }
        }
        Ok(inventory)
    }

    /// The container that has this address, other than `except`.
    pub(super) fn holder(&self, address: Ipv4Addr, except: ContainerId) -> Option<ContainerId> {
        self.find(except, |installed| installed.bindings.iter().any(|(_, bound)| *bound == address))
    }

    /// The container that has this interface, other than `except`.
    pub(super) fn holder_of_interface(&self, interface: &str, except: ContainerId) -> Option<ContainerId> {
        self.find(except, |installed| installed.interfaces.iter().any(|(_, name)| name == interface))
    }

    /// Addresses in owners' sets that belong to no container.
    pub(super) fn stray_owned(&self) -> Vec<(UserId, Ipv4Addr)> {
        let held: BTreeSet<_> = self.containers.values().flat_map(|installed| &installed.owners).copied().collect();
        let all = self.owners.iter().flat_map(|(owner, set)| set.iter().map(|address| (*owner, *address)));
        all.filter(|entry| !held.contains(entry)).collect()
    }

    /// True where the address is that of a container of somebody else.
    pub(super) fn is_strangers(&self, address: Ipv4Addr, owner: UserId) -> bool {
        self.owners.iter().any(|(other, addresses)| *other != owner && addresses.contains(&address))
    }

    /// Takes note of what a transaction has left of a container.
    pub(super) fn record(&mut self, id: ContainerId, next: Option<Installed>) {
        let before = self.containers.remove(&id).unwrap_or_default();
        for (owner, address) in &before.owners {
            self.owners.entry(*owner).or_default().remove(address);
        }
        if let Some(next) = next {
            for (owner, address) in &next.owners {
                self.owners.entry(*owner).or_default().insert(*address);
            }
            self.containers.insert(id, next);
        }
    }

    /// Owners of whom no address is left.
    pub(super) fn empty_owners(&self) -> Vec<UserId> {
        self.owners.iter().filter(|(_, addresses)| addresses.is_empty()).map(|(owner, _)| *owner).collect()
    }

    fn find(&self, except: ContainerId, is_it: impl Fn(&Installed) -> bool) -> Option<ContainerId> {
        self.containers.iter().find(|(id, installed)| **id != except && is_it(installed)).map(|(id, _)| *id)
    }

    fn container(&mut self, id: ContainerId) -> &mut Installed {
        self.containers.entry(id).or_default()
    }
}
