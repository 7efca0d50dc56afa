//! The firewall: `table inet hoody`, one transaction per change, over netlink in process.
//!
//! Policy is in force before a container's first packet: [`Firewall::apply`] is called before the
//! container's link comes up.

mod chain;
mod change;
mod conntrack;
mod error;
mod hosts;
mod instructions;
mod inventory;
mod names;
mod netlink;
mod nft;
mod read;
mod table;
mod verdict;
mod watch;
mod worker;

pub(crate) use instructions::CAPTURED;

pub use error::{FirewallError, Object, Operation};
pub use nft::{DEFAULT_CONNECTIONS_PER_CONTAINER, DEFAULT_TABLE, NftConfig, NftFirewall};
pub use worker::ForeignChain;

use async_trait::async_trait;
use hoody_protocol::{
    firewall::{FirewallSpec, RuleCounter},
    id::{ContainerId, UserId},
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

/// What the firewall needs to know of a container.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The container.
    pub id: ContainerId,
    /// Its owner: containers of one owner may reach each other, others not.
    pub owner: UserId,
    /// Host side interface.
    pub interface: String,
    /// Its address; other source addresses are dropped.
    pub address: Ipv4Addr,
    /// Its rules.
    pub rules: FirewallSpec,
    /// What leaves it at all.
    pub egress: Egress,
}

/// What leaves a container, its rules aside. Answers to connections that were begun towards it always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// Everything.
    Direct,
    /// Nothing.
    Block,
    /// TCP and UDP, to the transparent sockets on this address: the container's proxy. Where there are none,
    /// nothing.
    Proxy(SocketAddrV4),
}

/// Where a host name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Every address; for rules that refuse.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Those that a name may lead to at all; for rules that allow.
    pub permitted: BTreeSet<Ipv4Addr>,
    /// How long it may be believed.
    pub holds: Duration,
}

/// The node's packet filter. Calls are idempotent.
#[async_trait]
pub trait Firewall: Send + Sync + std::fmt::Debug {
    /// Makes the table, its base chains and the masquerading; keeps containers' chains that stand.
    /// Called at start and to repair.
    async fn prepare(&self) -> Result<(), FirewallError>;
    /// True where the base chains stand as [`Firewall::prepare`] leaves them.
    async fn is_prepared(&self) -> Result<bool, FirewallError>;
    /// Closes these UDP endpoints, where control planes await nodes, to every container, together with those that
    /// are closed already.
    async fn close_endpoints(&self, endpoints: Vec<SocketAddrV4>) -> Result<(), FirewallError>;
    /// Returns when somebody else has changed the table, or may have; never where nobody tells. May be abandoned.
    async fn changed(&self);
    /// Puts a container's policy in force in one transaction, replacing the one before; then drops
    /// connections that it no longer allows.
    async fn apply(&self, policy: &Policy) -> Result<(), FirewallError>;
    /// True where the container's chains stand as the last `apply` of this process left them.
    async fn is_applied(&self, id: ContainerId) -> Result<bool, FirewallError>;
    /// Removes a container's chains, map and set entries and its connections; success where there are
    /// none.
    async fn remove(&self, id: ContainerId) -> Result<(), FirewallError>;
    /// A host name in the container's rules was resolved: rules that allow it match the answer for as long as it
    /// holds, beside what earlier answers still hold for; rules that refuse it go on matching all of it until a later
    /// answer is without it. Nothing where no rule in force names it.
    async fn resolved(&self, id: ContainerId, host: &str, answer: Answer) -> Result<(), FirewallError>;
    /// Counters per rule, accumulated across replacements.
    async fn counters(&self, id: ContainerId) -> Result<Vec<RuleCounter>, FirewallError>;
    /// Every container of which the table holds anything, for finding leftovers.
    async fn inventory(&self) -> Result<Vec<ContainerId>, FirewallError>;
}

/// Any policy, compiled and put into a batch of netlink messages.
#[doc(hidden)]
pub(crate) fn fuzzing(rules: FirewallSpec) {
    let policy = Policy {
        id: ContainerId::from_bytes([1; 12]),
        owner: UserId::from_bytes([2; 12]),
        interface: "hy000000000000".to_owned(),
        address: Ipv4Addr::new(10, 64, 0, 2),
        rules,
        egress: Egress::Proxy(SocketAddrV4::new(Ipv4Addr::new(127, 64, 0, 2), 1)),
    };
    let network = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 16);
    let chains = chain::compile_all(&policy, network);
    let inventory = inventory::Inventory::default();
    let mut batch = netlink::batch::Batch::new("fuzzing");
    change::make_port_sets(&mut batch, &inventory, &chains);
    change::apply(&mut batch, &inventory, &policy, &chains);
}
