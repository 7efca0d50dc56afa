//! A container's firewall as the node enforces it: validated, ordered rules.
//!
//! Semantics: rules of a direction are evaluated in order and the first match wins; established
//! traffic continues; as soon as a direction has an enabled `allow` rule, what matches nothing in that
//! direction is dropped; with only `drop` and `reject` rules the rest passes. Disabled rules do not
//! exist for the kernel. "Allow" never skips the other container's rules.

use crate::{
    bounded::{List, Text},
    id::RuleId,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Rules of one container, both directions together.
pub const MAX_RULES: usize = 128;
/// Ranges in one port list.
pub const MAX_PORT_RANGES: usize = 32;

/// The rules of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FirewallSpec {
    /// Traffic to the container; `peer` is the source.
    pub ingress: List<FirewallRule, MAX_RULES>,
    /// Traffic from the container; `peer` is the destination.
    pub egress: List<FirewallRule, MAX_RULES>,
}

impl FirewallSpec {
    /// The rules of a direction, in order.
    pub fn rules(&self, direction: Direction) -> &[FirewallRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// Which way the traffic goes, seen from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the container.
    Ingress,
    /// From the container.
    Egress,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// Stable identity: counters are accumulated by it.
    pub id: RuleId,
    /// A disabled rule matches nothing.
    pub enabled: bool,
    /// What happens to traffic that matches.
    pub action: Action,
    /// What the rule matches.
    pub matches: Match,
    /// The other side's addresses; `None` is any.
    pub peer: Option<Ipv4Net>,
    /// The owner's remark.
    pub description: Text<255>,
}

/// The verdict of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Passes this direction; the other container's rules are still asked.
    Allow,
    /// Refused with a TCP reset, otherwise with ICMP port unreachable.
    Reject,
    /// Dropped silently.
    Drop,
}

/// The protocol and its parts that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// TCP segments.
    Tcp(Ports),
    /// UDP datagrams.
    Udp(Ports),
    /// ICMP for IPv4.
    Icmp4 {
        /// The ICMP type; `None` is any.
        icmp_type: Option<u8>,
        /// The code; only together with a type.
        icmp_code: Option<u8>,
    },
}

/// Ports of a TCP or UDP rule; an empty list is any port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ports {
    /// The sender's ports.
    pub source: List<PortRange, MAX_PORT_RANGES>,
    /// The receiver's ports.
    pub destination: List<PortRange, MAX_PORT_RANGES>,
}

/// A range of ports, both ends included; `first <= last`, checked when it is made and decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// The range ends before it begins, or holds port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a port range goes from 1..=65535 upwards")]
pub struct InvalidPortRange;

impl PortRange {
    /// The range from `first` to `last`, both included.
    pub fn new(first: u16, last: u16) -> Result<Self, InvalidPortRange> {
        if first == 0 || first > last { Err(InvalidPortRange) } else { Ok(Self { first, last }) }
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }
}

impl TryFrom<(u16, u16)> for PortRange {
    type Error = InvalidPortRange;
    fn try_from((first, last): (u16, u16)) -> Result<Self, InvalidPortRange> {
        Self::new(first, last)
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> Self {
        (range.first, range.last)
    }
}

/// What a rule has seen since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounter {
    /// The rule.
    pub rule: RuleId,
    /// Packets that matched.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
}
