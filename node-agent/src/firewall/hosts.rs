//! The sets of addresses that host names in rules stand for.
//!
//! A name has sets for the rules that allow it and one for those that refuse it, made empty with the rules, so that
//! an answer changes elements and never a rule. What is in those that allow passes away by the kernel's own clock: where
//! nobody renews it, it is closed. What is in the one that refuses stays until a later answer is without it: where nobody
//! renews it, it stays closed. Until there was an answer, [`RESOLVED`] is not in it, and its rules refuse everything.
//!
//! Where a name that is allowed leads elsewhere, its former addresses go from the first set to the second, in which only
//! packets of connections that stand find them, and stay there as long as the kernel tracks such a connection.

use super::{
    Answer, FirewallError, Policy,
    conntrack::{self, End},
    names::{self, Purpose},
    netlink::{
        batch::{Batch, SetShape},
        connection::Connection,
        wire::*,
    },
    read,
};
use hoody_protocol::id::ContainerId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// In a set: the name has been resolved, be it to nothing. No packet goes there.
pub(super) const RESOLVED: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Addresses of one name.
const MOST: usize = 256;
/// How often a change is tried: an element can pass away between reading and removing it.
const TRIES: usize = 3;

pub(super) const SHAPE: SetShape = SetShape {
    flags: NFT_SET_TIMEOUT,
    key_type: TYPE_IPADDR,
    key_order: BYTEORDER_BIG_ENDIAN,
    key_bytes: 4,
    size: Some(MOST as u32 * 2),
};

/// The sets that the rules of this policy look into, with purpose and name.
pub(super) fn of(policy: &Policy) -> BTreeMap<String, (Purpose, &str)> {
    let enabled = policy.rules.egress.iter().filter(|rule| rule.enabled);
    let named = enabled.filter_map(|rule| Some((Purpose::of(rule.action), rule.host.as_deref()?)));
    let sets = named.flat_map(|(purpose, host)| {
        let keep = (purpose == Purpose::Allow).then_some(Purpose::Keep);
        [Some(purpose), keep].into_iter().flatten().map(move |purpose| (purpose, host))
    });
    sets.map(|(purpose, host)| (names::host_set(policy.id, purpose, host), (purpose, host))).collect()
}

/// What this process has put into the sets: until when each address is believed.
#[derive(Debug, Default)]
pub(super) struct HostSets(BTreeMap<String, BTreeMap<Ipv4Addr, Instant>>);

impl HostSets {
    /// Forgets the container's other sets: they are gone.
    pub(super) fn retain(&mut self, id: ContainerId, sets: &BTreeSet<String>) {
        self.0.retain(|set, _| names::parse_host_set(set) != Some(id) || sets.contains(set));
    }

    /// Fills a set that is made anew with what was in it: others have removed it.
    pub(super) fn refill(&self, batch: &mut Batch, set: &str) {
        let (Some(believed), Some(purpose)) = (self.0.get(set), names::purpose_of(set)) else { return };
        put(batch, set, purpose, believed);
    }

    /// Puts an answer into a set, beside what earlier answers still hold for.
    pub(super) fn fill(
        &mut self,
        connection: &mut Connection,
        table: &str,
        set: &str,
        purpose: Purpose,
        answer: &Answer,
    ) -> Result<(), FirewallError> {
        replace(connection, table, set, purpose, |held| self.believed(set, held, purpose, answer))
    }

    /// Lets go on what the container at `address` has begun to where the name led before this answer.
    pub(super) fn keep(
        &mut self,
        connection: &mut Connection,
        table: &str,
        (id, address, host): (ContainerId, Ipv4Addr, &str),
        answer: &Answer,
    ) -> Result<(), FirewallError> {
        let [allow, keep] = [Purpose::Allow, Purpose::Keep].map(|purpose| names::host_set(id, purpose, host));
        let mut former = addresses(connection, table, &keep)?;
        let any = !former.is_empty();
        former.extend(self.0.get(&allow).into_iter().flatten().map(|(address, _)| *address));
        former.retain(|address| !answer.permitted.contains(address));
        if former.is_empty() && !any {
            return Ok(());
        }
        let entries = conntrack::list(connection, address)?.into_iter();
        let begun = entries.filter(|(end, _)| *end == End::Source).map(|(_, entry)| entry.flow.destination);
        let until = Instant::now() + answer.holds;
        let wanted: BTreeMap<_, _> =
            begun.filter(|address| former.contains(address)).map(|address| (address, until)).take(MOST).collect();
        replace(connection, table, &keep, Purpose::Keep, |_| wanted.clone())?;
        self.0.insert(keep, wanted);
        Ok(())
    }

    fn believed(
        &mut self,
        set: &str,
        held: &BTreeSet<Ipv4Addr>,
        purpose: Purpose,
        answer: &Answer,
    ) -> BTreeMap<Ipv4Addr, Instant> {
        let now = Instant::now();
        let until = now + answer.holds;
        // What an earlier process of the agent has left is as good as this answer.
        let left = || held.iter().filter(|address| **address != RESOLVED).map(|address| (*address, until)).collect();
        let believed = self.0.entry(set.to_owned()).or_insert_with(left);
        believed.retain(|_, until| *until > now);
        let told = match purpose {
            Purpose::Allow | Purpose::Keep => &answer.permitted,
            Purpose::Refuse => &answer.addresses,
        };
        for address in told.iter().filter(|address| **address != RESOLVED) {
            let end = believed.entry(*address).or_insert(until);
            *end = until.max(*end);
        }
        while believed.len() > MOST {
            let Some(first) = believed.iter().min_by_key(|(_, until)| **until).map(|(address, _)| *address) else {
                break;
            };
            believed.remove(&first);
        }
        believed.clone()
    }
}

/// Makes a set hold what is wanted, in one transaction.
fn replace(
    connection: &mut Connection,
    table: &str,
    set: &str,
    purpose: Purpose,
    mut wanted: impl FnMut(&BTreeSet<Ipv4Addr>) -> BTreeMap<Ipv4Addr, Instant>,
) -> Result<(), FirewallError> {
    let mut attempt = 1;
    loop {
        let held = addresses(connection, table, set)?;
        let mut batch = Batch::new(table);
        for address in &held {
            batch.delete_element(set, &address.octets());
        }
        put(&mut batch, set, purpose, &wanted(&held));
        match connection.commit(batch) {
            Err(error) if error.errno() == Some(libc::ENOENT) && attempt < TRIES => attempt += 1,
            done => return done,
        }
    }
}

fn put(batch: &mut Batch, set: &str, purpose: Purpose, believed: &BTreeMap<Ipv4Addr, Instant>) {
    for (address, until) in believed {
        let timeout = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let timeout = (purpose != Purpose::Refuse).then_some(timeout);
        batch.add_passing_element(set, &address.octets(), timeout);
    }
    if purpose == Purpose::Refuse {
        batch.add_passing_element(set, &RESOLVED.octets(), None);
    }
}

/// What the sets of a policy hold.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<(Purpose, String), BTreeSet<Ipv4Addr>>);

impl Known {
    pub(super) fn read(connection: &mut Connection, table: &str, policy: &Policy) -> Result<Self, FirewallError> {
        let mut known: HashMap<_, BTreeSet<_>> = HashMap::new();
        for (set, (purpose, host)) in of(policy) {
            // Asked about connections that stand.
            let purpose = if purpose == Purpose::Keep { Purpose::Allow } else { purpose };
            let held = addresses(connection, table, &set)?;
            known.entry((purpose, host.to_owned())).or_default().extend(held);
        }
        Ok(Self(known))
    }

    /// Whether a rule of this purpose matches the address, as the host's.
    pub(super) fn matches(&self, purpose: Purpose, host: &str, address: Ipv4Addr) -> bool {
        let held = self.0.get(&(purpose, host.to_owned()));
        let unknown = purpose == Purpose::Refuse && held.is_none_or(|held| !held.contains(&RESOLVED));
        unknown || held.is_some_and(|held| held.contains(&address))
    }

    #[cfg(test)]
    pub(super) fn of(known: impl IntoIterator<Item = ((Purpose, String), BTreeSet<Ipv4Addr>)>) -> Self {
        Self(known.into_iter().collect())
    }
}

fn addresses(connection: &mut Connection, table: &str, set: &str) -> Result<BTreeSet<Ipv4Addr>, FirewallError> {
    let elements = read::elements(connection, table, set)?.into_iter();
    Ok(elements.filter_map(|(key, _)| <[u8; 4]>::try_from(key).ok()).map(Ipv4Addr::from).collect())
}
