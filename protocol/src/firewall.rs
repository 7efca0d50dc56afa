//! A container's firewall as the node enforces it: validated, ordered rules.
//!
//! Semantics: rules of a direction are evaluated in order and the first match wins; established
//! traffic continues; as soon as a direction has an enabled `allow` rule, what matches nothing in that
//! direction is dropped; with only `drop` and `reject` rules the rest passes. Disabled rules do not
//! exist for the kernel. "Allow" never skips the other container's rules.
//!
//! An egress rule may name a host instead of addresses. It matches what the name resolves to, as the node was told;
//! one that allows matches nothing until then, and one that drops or rejects matches every address.

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
/// Bytes of a host name (RFC 1035).
pub const MAX_HOST_BYTES: usize = 253;

/// The rules of one container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FirewallSpec {
    /// Traffic to the container; `peer` is the source.
    pub ingress: List<FirewallRule, MAX_RULES>,
    /// Traffic from the container; `peer` is the destination.
    pub egress: List<FirewallRule, MAX_RULES>,
}

impl FirewallSpec {
    /// What is wrong with it, for people.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.ingress.iter().any(|rule| rule.host.is_some()) {
            return Err("a rule for what comes in names a host");
        }
        let mut named = self.egress.iter().filter_map(|rule| Some((rule, rule.host.as_ref()?)));
        if named.any(|(rule, host)| rule.peer.is_some() || !is_host_name(host)) {
            return Err("a rule names a host that is none, or beside addresses");
        }
        Ok(())
    }

    /// The rules of a direction, in order.
    pub fn rules(&self, direction: Direction) -> &[FirewallRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// True for a name of two DNS labels or more whose last one begins with a letter (RFC 1123, RFC 3696 2), in lower case
/// and without a dot at its end.
pub fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_a_word = |text: &str| {
        text.rsplit_once('.').is_some_and(|(_, last)| last.starts_with(|first: char| first.is_ascii_lowercase()))
    };
    text.len() <= MAX_HOST_BYTES && last_is_a_word(text) && text.split('.').all(label)
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
    /// The other side's host name, in lower case and without a dot at its end: egress alone, and instead of `peer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Text<MAX_HOST_BYTES>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(peer: Option<&str>, host: Option<&str>) -> FirewallRule {
        FirewallRule {
            id: RuleId::from_bytes([1; 12]),
            enabled: true,
            action: Action::Allow,
            matches: Match::Tcp(Ports::default()),
            peer: peer.map(|peer| peer.parse().unwrap()),
            host: host.map(Text::truncated),
            description: Text::default(),
        }
    }

    #[test]
    fn host_names_are_for_egress_and_stand_alone() {
        let spec = |ingress: &[FirewallRule], egress: &[FirewallRule]| FirewallSpec {
            ingress: ingress.to_vec().try_into().unwrap(),
            egress: egress.to_vec().try_into().unwrap(),
        };
        let (named, plain) = (rule(None, Some("api.example.com")), rule(Some("10.0.0.0/8"), None));
        assert_eq!(spec(&[plain.clone()], &[named.clone(), plain.clone()]).check(), Ok(()));
        assert!(spec(&[named], &[]).check().is_err(), "what comes in has no name");
        assert!(spec(&[], &[rule(Some("10.0.0.0/8"), Some("a.example"))]).check().is_err());
        for bad in ["", "a", "10.0.0.1", "a..b", "-a.b", "A.example", "a.example.", "a_b.example", "a.1"] {
            assert!(spec(&[], &[rule(None, Some(bad))]).check().is_err(), "{bad:?}");
        }
    }
}
