//! From a container's policy to the rules of its two chains.
//!
//! A chain begins with what its owner cannot change, lets pass what belongs to a connection that
//! stands, and then has one rule for each enabled rule of the policy, in order. "Allow" is `return`:
//! the other side's chain must still be asked. Packets in the direction in which their connection was
//! begun go through the policy's rules every time, so that a rule added later cuts them.

use super::{
    Egress, Policy,
    change::Chains,
    hosts::RESOLVED,
    instructions::*,
    names::{self, ChainKind, Purpose},
    netlink::{
        batch::Rule,
        expression::{Expression, PortRanges, Verdict},
        wire::*,
    },
};
use hoody_protocol::{
    firewall::{Action, Direction, FirewallRule, Match, PortRange},
    id::ContainerId,
};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    net::SocketAddrV4,
};

/// Where the ports stand in TCP's and UDP's header, type and code in ICMP's.
const SOURCE_PORT_OFFSET: u32 = 0;
const DESTINATION_PORT_OFFSET: u32 = 2;
const ICMP_TYPE_OFFSET: u32 = 0;
const ICMP_CODE_OFFSET: u32 = 1;
/// Bytes of the digest that are shown in a chain's first comment.
const FINGERPRINT_BYTES: usize = 8;

/// The rules of all of a container's chains.
pub(super) fn compile_all(policy: &Policy, network: Ipv4Net) -> Chains {
    let mut chains = vec![
        (ChainKind::Egress, compile(policy, network, Direction::Egress)),
        (ChainKind::Ingress, compile(policy, network, Direction::Ingress)),
    ];
    if let Egress::Proxy(listener) = policy.egress {
        chains.push((ChainKind::Capture, capture(listener)));
    }
    chains
}

/// The rules by which what the container sends is taken for its proxy before it is routed. What is not taken is
/// dropped, also where nobody listens; the chain of its egress drops it a second time.
fn capture(listener: SocketAddrV4) -> Vec<Rule> {
    let mark = CAPTURED.to_ne_bytes().to_vec();
    let take = |name: &str, number: u8| {
        let taken = vec![Expression::Capture(listener), Expression::SetMeta(NFT_META_MARK, mark.clone())];
        rule(name, [ipv4(), protocol(number), taken, verdict(Verdict::Return)])
    };
    let mut rules = vec![
        replies(),
        rule("begun through the proxy", [state(STATE_NEW), vec![Expression::SetConntrack(NFT_CT_MARK, mark.clone())]]),
        take("tcp to the proxy", PROTOCOL_TCP),
        take("udp to the proxy", PROTOCOL_UDP),
        rule("not for the proxy", [verdict(Verdict::Drop)]),
    ];
    sign(&mut rules);
    rules
}

/// The rules of one direction.
fn compile(policy: &Policy, network: Ipv4Net, direction: Direction) -> Vec<Rule> {
    let mut rules = Vec::new();
    match (direction, policy.egress) {
        (Direction::Ingress, _) | (_, Egress::Direct) => rules.extend(established()),
        (Direction::Egress, Egress::Block) => {
            rules.extend([replies(), rule("blocked", [verdict(Verdict::Drop)])]);
            sign(&mut rules);
            return rules;
        }
        (Direction::Egress, Egress::Proxy(_)) => {
            rules.extend([replies(), rule("not through the proxy", [not_captured(), verdict(Verdict::Drop)])]);
        }
    }
    // Behind the replies: what the host asks from an address within the network is answered.
    // What goes to the proxy reaches no other container.
    if direction == Direction::Egress && policy.egress == Egress::Direct {
        let stranger = vec![
            Expression::Network { offset: DESTINATION_OFFSET, bytes: 4 },
            Expression::Lookup { set: names::owner_set(policy.owner), inverted: true },
        ];
        let inside = address_in(DESTINATION_OFFSET, network);
        rules.push(rule("other owners", [ipv4(), inside, stranger, verdict(Verdict::Drop)]));
    }
    let enabled = || policy.rules.rules(direction).iter().filter(|rule| rule.enabled);
    rules.extend(enabled().flat_map(|rule| every(policy.id, rule, direction)));
    if enabled().any(|rule| rule.action == Action::Allow) {
        rules.push(rule("not allowed", [verdict(Verdict::Drop)]));
    }
    sign(&mut rules);
    rules
}

/// The sets of ports into which these rules look, by name.
pub(super) fn port_sets<'a>(rules: impl Iterator<Item = &'a Rule>) -> BTreeMap<String, &'a PortRanges> {
    let expressions = rules.flat_map(|rule| &rule.expressions);
    expressions
        .filter_map(|expression| match expression {
            Expression::PortIn(ranges) => Some((names::port_set(ranges), ranges)),
            _ => None,
        })
        .collect()
}

/// Puts a digest of all the rules into the first one's comment: equal comments are equal chains.
fn sign(rules: &mut [Rule]) {
    let mut digest = DigestHasher(Sha256::new());
    rules.hash(&mut digest);
    let digest = digest.0.finalize();
    if let Some(first) = rules.first_mut() {
        first.comment = format!("{} {}", first.comment, hex::encode(&digest[..FINGERPRINT_BYTES]));
    }
}

struct DigestHasher(Sha256);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(&self) -> u64 {
        0 // Not asked for: the digest is taken out whole.
    }
}

/// The rules of one rule of the policy. One that refuses what goes to a host refuses everything as long as nobody knows
/// where the host is.
fn every(id: ContainerId, spec: &FirewallRule, direction: Direction) -> Vec<Rule> {
    let peer_offset = match direction {
        Direction::Egress => DESTINATION_OFFSET,
        Direction::Ingress => SOURCE_OFFSET,
    };
    let Some(host) = &spec.host else {
        let peer = spec.peer.map(|peer| address_in(peer_offset, peer)).unwrap_or_default();
        return vec![one(id, spec, peer)];
    };
    let purpose = Purpose::of(spec.action);
    let set = |purpose| names::host_set(id, purpose, host);
    let is_in = |purpose| {
        vec![
            Expression::Network { offset: peer_offset, bytes: 4 },
            Expression::Lookup { set: set(purpose), inverted: false },
        ]
    };
    match purpose {
        Purpose::Allow | Purpose::Keep => {
            let stands = [state(STATE_ESTABLISHED), is_in(Purpose::Keep)].concat();
            vec![one(id, spec, is_in(Purpose::Allow)), one(id, spec, stands)]
        }
        Purpose::Refuse => {
            let load = Expression::Load(RESOLVED.octets().to_vec());
            let unknown = vec![load, Expression::Lookup { set: set(Purpose::Refuse), inverted: true }];
            vec![one(id, spec, unknown), one(id, spec, is_in(Purpose::Refuse))]
        }
    }
}

/// One rule: `peer` are the instructions that look at the other side.
fn one(id: ContainerId, spec: &FirewallRule, peer: Vec<Expression>) -> Rule {
    let (matches, reject) = match &spec.matches {
        Match::Tcp(both) => (ports(PROTOCOL_TCP, &both.source, &both.destination), Expression::RejectWithReset),
        Match::Udp(both) => (ports(PROTOCOL_UDP, &both.source, &both.destination), Expression::RejectUnreachable),
        Match::Icmp4 { icmp_type, icmp_code } => (icmp(*icmp_type, *icmp_code), Expression::RejectUnreachable),
    };
    let action = match spec.action {
        Action::Allow => Expression::Verdict(Verdict::Return),
        Action::Drop => Expression::Verdict(Verdict::Drop),
        Action::Reject => reject,
    };
    let count = Expression::Count(names::counter(id, spec.id));
    rule(&format!("rule {}", spec.id), [ipv4(), peer, matches, vec![count, action]])
}

fn ports(number: u8, source: &[PortRange], destination: &[PortRange]) -> Vec<Expression> {
    let mut row = protocol(number);
    row.extend(port_in(SOURCE_PORT_OFFSET, source));
    row.extend(port_in(DESTINATION_PORT_OFFSET, destination));
    row
}

/// One range is compared, several are looked up in a set: either way it is one rule and one decision.
fn port_in(offset: u32, ranges: &[PortRange]) -> Vec<Expression> {
    let load = Expression::Transport { offset, bytes: 2 };
    match merge(ranges).as_slice() {
        [] => Vec::new(),
        [(first, last)] if first == last => vec![load, equal(&first.to_be_bytes())],
        [(first, last)] => vec![
            load,
            Expression::Compare(NFT_CMP_GTE, first.to_be_bytes().to_vec()),
            Expression::Compare(NFT_CMP_LTE, last.to_be_bytes().to_vec()),
        ],
        several => vec![load, Expression::PortIn(several.to_vec())],
    }
}

/// The same ports in ascending ranges that neither overlap nor touch, as the kernel's sets want them.
fn merge(ranges: &[PortRange]) -> PortRanges {
    let mut sorted: Vec<(u16, u16)> = ranges.iter().map(|range| (range.first(), range.last())).collect();
    sorted.sort_unstable();
    let mut merged: PortRanges = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn icmp(icmp_type: Option<u8>, icmp_code: Option<u8>) -> Vec<Expression> {
    let mut row = protocol(PROTOCOL_ICMP);
    for (offset, value) in [(ICMP_TYPE_OFFSET, icmp_type), (ICMP_CODE_OFFSET, icmp_code)] {
        if let Some(value) = value {
            row.extend([Expression::Transport { offset, bytes: 1 }, equal(&[value])]);
        }
    }
    row
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
