//! The firewall's work, one call at a time: reads the inventory, commits a transaction, cuts
//! connections.
//!
//! The picture of the kernel is trusted until the kernel contradicts it (something is missing that
//! should be there, or the other way round); then it is read anew and the call is tried once more.

use super::{
    Answer, Egress, FirewallError, Policy, chain, change,
    conntrack::{self, End, Entry},
    hosts::{HostSets, Known},
    inventory::{Installed, Inventory},
    names::{self, BINDINGS, CONNECTIONS, ChainKind, Purpose},
    netlink::{
        batch::Batch,
        connection::Connection,
        wire::{NF_INET_FORWARD, NFT_TABLE_F_DORMANT, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST},
    },
    nft::NftConfig,
    read, table, verdict,
};
use hoody_protocol::{
    firewall::{Action, Direction, RuleCounter},
    id::ContainerId,
};
use std::{
    collections::{BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

/// How often a call is tried: with the remembered inventory, and with a fresh one.
const TRIES: usize = 2;

/// Endpoints that are closed to containers at most, those of before included.
const MAX_CLOSED_ENDPOINTS: usize = 64;
/// How long the table may still be held by the agent before this one: killed a moment ago, it, or a program that it
/// was just starting, closes its sockets only after everything else is free.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// A base chain of another table that drops by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

/// What the last `apply` of this process put in force.
#[derive(Debug)]
struct Applied {
    policy: Policy,
    /// By chain name, the rules' comments in order.
    comments: Vec<(String, Vec<String>)>,
    kinds: Vec<ChainKind>,
    /// False until the connections that it does not allow are cut.
    purged: bool,
    /// The sets of ports that its chains look into.
    port_sets: BTreeSet<String>,
}

/// The sockets and what is known of the kernel.
#[derive(Debug)]
pub(super) struct Worker {
    config: NftConfig,
    connection: Connection,
    inventory: Option<Inventory>,
    applied: HashMap<ContainerId, Applied>,
    hosts: HostSets,
}

impl Worker {
    pub(super) fn open(config: NftConfig) -> Result<Self, FirewallError> {
        Ok(Self {
            config,
            connection: Connection::open()?,
            inventory: None,
            applied: HashMap::new(),
            hosts: HostSets::default(),
        })
    }

    /// The address of the socket that changes the table.
    pub(super) fn port(&self) -> u32 {
        self.connection.port()
    }

    /// Reads the kernel anew before the next call.
    pub(super) fn forget(&mut self) {
        self.inventory = None;
    }

    pub(super) fn prepare(&mut self) -> Result<(), FirewallError> {
        let deadline = Instant::now() + RELEASE_LIMIT;
        loop {
            match self.make_base() {
                Err(error) if error.errno() == Some(libc::EPERM) && Instant::now() < deadline => {
                    std::thread::sleep(RELEASE_POLL);
                }
                done => break done?,
            }
        }
        hoody_fault::point!("firewall.prepared");
        self.inventory = Some(Inventory::load(&mut self.connection, &self.config.table)?);
        self.clear_empty_owners();
        self.clear_port_sets();
        Ok(())
    }

    /// Makes the base in a table of our own where that can be, else in one that everybody may change: on older
    /// kernels, and where such a table stands already. Turning it into ours would mean to delete it.
    fn make_base(&mut self) -> Result<(), FirewallError> {
        self.forget();
        let inventory = self.known()?;
        let mut kinds = [NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST, 0];
        if !self.config.own_table {
            kinds.reverse();
        }
        let [preferred, other] = kinds.map(|flags| {
            let mut batch = Batch::new(&self.config.table);
            change::prepare(&mut batch, &inventory, &self.config, flags);
            batch
        });
        match self.connection.commit(preferred) {
            Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.connection.commit(other)
            }
            done => done,
        }
    }

    pub(super) fn close_endpoints(&mut self, endpoints: Vec<SocketAddrV4>) -> Result<(), FirewallError> {
        let mut all = self.config.closed_endpoints.clone();
        all.extend(endpoints.iter().filter(|endpoint| !self.config.closed_endpoints.contains(endpoint)));
        if all.len() == self.config.closed_endpoints.len() {
            return Ok(());
        }
        // A name that leads elsewhere each time must not fill the table; what it leads to now counts.
        self.config.closed_endpoints = if all.len() > MAX_CLOSED_ENDPOINTS { endpoints } else { all };
        self.prepare()
    }

    pub(super) fn is_prepared(&mut self) -> Result<bool, FirewallError> {
        let name = &self.config.table;
        // One that sleeps has all its chains, and asks none of them.
        let flags = read::table_flags(&mut self.connection, name)?;
        if flags.is_none_or(|flags| flags & NFT_TABLE_F_DORMANT != 0) {
            return Ok(false);
        }
        let called = read::called_chains(&mut self.connection, name)?;
        for chain in table::outline(&self.config) {
            if called.iter().any(|called| called == chain.name) != chain.hooked
                || read::comments(&mut self.connection, name, chain.name)? != chain.comments
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn apply(&mut self, policy: &Policy) -> Result<(), FirewallError> {
        self.check(policy)?;
        let chains = chain::compile_all(policy, self.config.network);
        let before = self.settle(|worker, inventory| {
            worker.check_unique(inventory, policy)?;
            let mut sets = Batch::new(&worker.config.table);
            let made = change::make_port_sets(&mut sets, inventory, &chains);
            worker.connection.commit(sets)?;
            hoody_fault::point!("firewall.sets");
            inventory.port_sets.extend(made);
            let mut batch = Batch::new(&worker.config.table);
            let next = change::apply(&mut batch, inventory, policy, &chains);
            let stood = inventory.containers.get(&policy.id).map(|installed| installed.hosts.clone());
            for set in next.hosts.difference(&stood.unwrap_or_default()) {
                worker.hosts.refill(&mut batch, set);
            }
            worker.connection.commit(batch)?;
            hoody_fault::point!("firewall.committed");
            let before = inventory.containers.get(&policy.id).cloned();
            worker.hosts.retain(policy.id, &next.hosts);
            inventory.record(policy.id, Some(next));
            Ok(before)
        })?;
        let moved = before.as_ref().is_none_or(|installed| !installed.addresses().contains(&policy.address));
        let unchanged = self.applied.get(&policy.id).is_some_and(|applied| {
            let (last, now) = (&applied.policy, policy);
            let said = |policy: &Policy| (policy.owner, policy.address, policy.egress);
            applied.purged && !moved && said(last) == said(now) && last.rules == now.rules
        });
        let comments = chains.iter().map(|(kind, rules)| {
            (names::chain(policy.id, *kind), rules.iter().map(|rule| rule.comment.clone()).collect())
        });
        let applied = Applied {
            policy: policy.clone(),
            comments: comments.collect(),
            kinds: chains.iter().map(|(kind, _)| *kind).collect(),
            purged: unchanged,
            port_sets: chain::port_sets(chains.iter().flat_map(|(_, rules)| rules)).into_keys().collect(),
        };
        self.applied.insert(policy.id, applied);
        self.clear_port_sets();
        if !unchanged {
            self.purge(policy, before.as_ref(), moved)?;
            hoody_fault::point!("firewall.purged");
        }
        if let Some(applied) = self.applied.get_mut(&policy.id) {
            applied.purged = true;
        }
        self.clear_empty_owners();
        Ok(())
    }

    pub(super) fn is_applied(&mut self, id: ContainerId) -> Result<bool, FirewallError> {
        let Some(applied) = self.applied.get(&id) else { return Ok(false) };
        if !applied.purged {
            return Ok(false);
        }
        let table = &self.config.table;
        for (chain, comments) in &applied.comments {
            if read::comments(&mut self.connection, table, chain)? != *comments {
                return Ok(false);
            }
        }
        let policy = &applied.policy;
        let interface = names::interface_key(&policy.interface);
        let mut keys: Vec<_> = applied.kinds.iter().map(|kind| (kind.map().to_owned(), interface.clone())).collect();
        keys.push((BINDINGS.to_owned(), names::binding_key(&policy.interface, policy.address)));
        keys.push((names::owner_set(policy.owner), policy.address.octets().to_vec()));
        let found = read::find_elements(&mut self.connection, table, &keys)?;
        let mut chains = applied.kinds.iter().map(|kind| names::chain(id, *kind));
        Ok(found.into_iter().all(|element| element.is_some_and(|(_, chain)| chain == chains.next())))
    }

    pub(super) fn remove(&mut self, id: ContainerId) -> Result<(), FirewallError> {
        if self.inventory.as_ref().is_some_and(|inventory| !inventory.containers.contains_key(&id)) {
            // Nothing known of it: make sure.
            self.forget();
        }
        let before = self.settle_anyhow(|worker, inventory| {
            let Some(before) = inventory.containers.get(&id).cloned() else { return Ok(None) };
            let mut batch = Batch::new(&worker.config.table);
            change::remove(&mut batch, id, &before);
            worker.connection.commit(batch)?;
            hoody_fault::point!("firewall.removed");
            inventory.record(id, None);
            worker.hosts.retain(id, &BTreeSet::new());
            Ok(Some(before))
        })?;
        let mut addresses = before.map(|installed| installed.addresses()).unwrap_or_default();
        addresses.extend(self.applied.remove(&id).map(|applied| applied.policy.address));
        self.clear_port_sets();
        for address in addresses {
            self.cut(address, |_, _| true)?;
            hoody_fault::point!("firewall.cut");
            self.stop_counting(address)?;
        }
        self.clear_empty_owners();
        Ok(())
    }

    pub(super) fn resolved(&mut self, id: ContainerId, host: &str, answer: &Answer) -> Result<(), FirewallError> {
        let inventory = self.known()?;
        let standing = inventory.containers.get(&id).map(|installed| installed.hosts.clone()).unwrap_or_default();
        self.inventory = Some(inventory);
        let address = self.applied.get(&id).map(|applied| applied.policy.address);
        // First: what stands is never without a place.
        if let Some(address) = address.filter(|_| standing.contains(&names::host_set(id, Purpose::Keep, host))) {
            self.hosts.keep(&mut self.connection, &self.config.table, (id, address, host), answer)?;
        }
        for purpose in Purpose::ANSWERED {
            let set = names::host_set(id, purpose, host);
            if standing.contains(&set) {
                self.hosts.fill(&mut self.connection, &self.config.table, &set, purpose, answer)?;
            }
        }
        Ok(())
    }

    pub(super) fn counters(&mut self, id: ContainerId) -> Result<Vec<RuleCounter>, FirewallError> {
        let inventory = self.known()?;
        let rules: Vec<_> = inventory.containers.get(&id).into_iter().flat_map(|one| &one.counters).copied().collect();
        self.inventory = Some(inventory);
        let counters: Vec<_> = rules.iter().map(|rule| names::counter(id, *rule)).collect();
        let counts = read::counters(&mut self.connection, &self.config.table, &counters)?;
        let known = rules.into_iter().zip(counts);
        Ok(known
            .filter_map(|(rule, count)| count.map(|(packets, bytes)| RuleCounter { rule, packets, bytes }))
            .collect())
    }

    pub(super) fn inventory(&mut self) -> Result<Vec<ContainerId>, FirewallError> {
        self.forget();
        let inventory = self.known()?;
        let mut ids: Vec<_> = inventory.containers.keys().copied().collect();
        ids.sort_unstable();
        self.inventory = Some(inventory);
        Ok(ids)
    }

    pub(super) fn foreign_drops(&mut self) -> Result<Vec<ForeignChain>, FirewallError> {
        let chains = read::base_chains(&mut self.connection)?.into_iter();
        let foreign = chains.filter(|chain| chain.hook == NF_INET_FORWARD && chain.drops);
        Ok(foreign
            .filter(|chain| chain.table != self.config.table)
            .map(|chain| ForeignChain { table: chain.table, chain: chain.name })
            .collect())
    }

    /// Takes the inventory out, reading it where it is not known.
    fn known(&mut self) -> Result<Inventory, FirewallError> {
        match self.inventory.take() {
            Some(inventory) => Ok(inventory),
            None => Inventory::load(&mut self.connection, &self.config.table),
        }
    }

    /// Runs a change on a prepared table.
    fn settle<T>(
        &mut self,
        mut change: impl FnMut(&mut Self, &mut Inventory) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        let table = self.config.table.clone();
        self.settle_anyhow(|worker, inventory| {
            if inventory.prepared {
                change(worker, inventory)
            } else {
                Err(FirewallError::Unprepared { table: table.clone() })
            }
        })
    }

    /// Runs a change; a second time with a fresh inventory where the first one proved wrong.
    fn settle_anyhow<T>(
        &mut self,
        mut change: impl FnMut(&mut Self, &mut Inventory) -> Result<T, FirewallError>,
    ) -> Result<T, FirewallError> {
        for attempt in 1.. {
            let remembered = self.inventory.is_some();
            let mut inventory = self.known()?;
            match change(self, &mut inventory) {
                Ok(done) => {
                    self.inventory = Some(inventory);
                    return Ok(done);
                }
                // Whatever the cause, the inventory is dropped here and read anew by the next call.
                Err(error) if !remembered || attempt == TRIES || !may_be_outdated(&error) => return Err(error),
                Err(error) => tracing::debug!(%error, "inventory of the firewall is outdated"),
            }
        }
        unreachable!("the loop ends with its last attempt")
    }

    /// Cuts what the new policy does not allow; everything, where the address is new to the container:
    /// what the kernel still knows of it belonged to somebody else.
    fn purge(&mut self, policy: &Policy, before: Option<&Installed>, moved: bool) -> Result<(), FirewallError> {
        let mut former: BTreeSet<_> = before.map(Installed::addresses).unwrap_or_default();
        former.remove(&policy.address);
        for address in former {
            self.cut(address, |_, _| true)?;
            self.stop_counting(address)?;
        }
        if moved {
            return self.cut(policy.address, |_, _| true);
        }
        let hosts = Known::read(&mut self.connection, &self.config.table, policy)?;
        let inventory = self.known()?;
        let strangers = |peer| inventory.is_strangers(peer, policy.owner);
        let cut = self.cut(policy.address, |end, entry| {
            let flow = &entry.flow;
            // What was begun in another way than the one that now leads outside.
            let otherwise = match policy.egress {
                Egress::Direct => entry.captured,
                Egress::Block => true,
                Egress::Proxy(_) => !entry.captured,
            };
            if end == End::Source && otherwise {
                return true;
            }
            let (direction, peer) = match end {
                End::Source => (Direction::Egress, flow.destination),
                End::Destination => (Direction::Ingress, flow.source),
            };
            strangers(peer) || verdict::decide(policy.rules.rules(direction), direction, flow, &hosts) != Action::Allow
        });
        self.inventory = Some(inventory);
        cut
    }

    fn cut(&mut self, address: Ipv4Addr, which: impl Fn(End, &Entry) -> bool) -> Result<(), FirewallError> {
        let entries = conntrack::list(&mut self.connection, address)?;
        let entries: Vec<_> =
            entries.into_iter().filter(|(end, entry)| which(*end, entry)).map(|(_, entry)| entry).collect();
        let cut = conntrack::delete(&mut self.connection, &entries)?;
        if cut > 0 {
            tracing::debug!(%address, connections = cut, "cut connections");
        }
        Ok(())
    }

    /// Removes the address from the set in which the kernel counts its connections.
    fn stop_counting(&mut self, address: Ipv4Addr) -> Result<(), FirewallError> {
        // Asked first: a refused transaction waits some 20 ms for a grace period in the kernel.
        let key = (CONNECTIONS.to_owned(), address.octets().to_vec());
        let found = read::find_elements(&mut self.connection, &self.config.table, &[key])?;
        if found.iter().all(Option::is_none) {
            return Ok(());
        }
        let mut batch = Batch::new(&self.config.table);
        batch.delete_element(CONNECTIONS, &address.octets());
        match self.connection.commit(batch) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            done => done,
        }
    }

    /// Removes the sets of owners that have no container left. One that cannot be removed, because a
    /// damaged chain refers to it, stays empty and is tried again after the next change.
    fn clear_empty_owners(&mut self) {
        let Some(inventory) = &mut self.inventory else { return };
        for owner in inventory.empty_owners() {
            let mut batch = Batch::new(&self.config.table);
            batch.delete_set(&names::owner_set(owner));
            match self.connection.commit(batch) {
                Err(error) if error.errno() != Some(libc::ENOENT) => {
                    tracing::warn!(%owner, error = &error as &dyn std::error::Error, "owner's empty set stays");
                }
                _ => _ = inventory.owners.remove(&owner),
            }
        }
    }

    /// Removes the sets of ports that no rule looks into any more. Waits until every container of the
    /// table was applied by this process: only then it is known which sets are in use.
    fn clear_port_sets(&mut self) {
        let Some(inventory) = &mut self.inventory else { return };
        if !inventory.containers.keys().all(|id| self.applied.contains_key(id)) {
            return;
        }
        let in_use: BTreeSet<_> = self.applied.values().flat_map(|applied| &applied.port_sets).collect();
        let unused: Vec<_> = inventory.port_sets.iter().filter(|name| !in_use.contains(name)).cloned().collect();
        let mut batch = Batch::new(&self.config.table);
        unused.iter().for_each(|name| batch.delete_set(name));
        match self.connection.commit(batch) {
            Ok(()) => inventory.port_sets.retain(|name| !unused.contains(name)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "unused sets of ports stay");
                self.forget();
            }
        }
    }

    fn check(&self, policy: &Policy) -> Result<(), FirewallError> {
        let failed = |reason| Err(FirewallError::Policy { id: policy.id, reason });
        if !names::is_interface(&policy.interface) {
            return failed(format!("interface name {:?} is not one of a container", policy.interface));
        }
        if !self.config.network.contains(&policy.address) {
            return failed(format!("address {} is outside {}", policy.address, self.config.network));
        }
        Ok(())
    }

    fn check_unique(&self, inventory: &Inventory, policy: &Policy) -> Result<(), FirewallError> {
        let failed = |reason| Err(FirewallError::Policy { id: policy.id, reason });
        if let Some(other) = inventory.holder(policy.address, policy.id) {
            return failed(format!("address {} is that of container {other}", policy.address));
        }
        if let Some(other) = inventory.holder_of_interface(&policy.interface, policy.id) {
            return failed(format!("interface {} is that of container {other}", policy.interface));
        }
        Ok(())
    }
}

/// True where the inventory may have been wrong about the kernel.
fn may_be_outdated(error: &FirewallError) -> bool {
    match error {
        FirewallError::Unprepared { .. } | FirewallError::Policy { .. } => true,
        error => matches!(error.errno(), Some(libc::ENOENT | libc::EEXIST | libc::EBUSY)),
    }
}
