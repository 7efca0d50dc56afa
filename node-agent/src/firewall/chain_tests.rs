//! Compiled chains run on a small model of the kernel's machine, against the other description of what
//! rules mean, [`verdict::decide`].

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use super::*;
use crate::firewall::{
    hosts::Known,
    verdict::{self, Flow},
};
use hoody_protocol::{
    firewall::{FirewallSpec, Ports},
    id::{RuleId, UserId},
};
use proptest::prelude::*;
use std::{cmp::Ordering, collections::BTreeSet, net::Ipv4Addr};

/// What a chain did with the first packet of a flow, and which rules counted it.
fn run(rules: &[Rule], flow: &Flow, sets: &BTreeMap<String, BTreeSet<Ipv4Addr>>) -> (Action, Vec<String>) {
    let mut counted = Vec::new();
    for rule in rules {
        let mut register = Vec::new();
        for expression in &rule.expressions {
            let goes_on = match expression {
                Expression::Meta(NFT_META_NFPROTO) => load(&mut register, &[NFPROTO_IPV4]),
                Expression::Meta(NFT_META_L4PROTO) => load(&mut register, &[flow.protocol]),
                Expression::Conntrack(NFT_CT_DIRECTION) => load(&mut register, &[0]),
                Expression::Conntrack(NFT_CT_STATE) => load(&mut register, &STATE_NEW.to_ne_bytes()),
                Expression::Network { offset: SOURCE_OFFSET, .. } => load(&mut register, &flow.source.octets()),
                Expression::Network { offset: DESTINATION_OFFSET, .. } => {
                    load(&mut register, &flow.destination.octets())
                }
                Expression::Transport { offset, bytes } => {
                    let start = *offset as usize;
                    load(&mut register, &transport(flow)[start..start + *bytes as usize])
                }
                Expression::Mask(mask) => {
                    register.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
                    true
                }
                Expression::Compare(operator, value) => match register[..value.len()].cmp(value) {
                    Ordering::Equal => *operator != NFT_CMP_NEQ,
                    Ordering::Less => matches!(*operator, NFT_CMP_NEQ | NFT_CMP_LTE),
                    Ordering::Greater => matches!(*operator, NFT_CMP_NEQ | NFT_CMP_GTE),
                },
                Expression::Load(value) => load(&mut register, value),
                Expression::Lookup { set, inverted } => {
                    let address = Ipv4Addr::new(register[0], register[1], register[2], register[3]);
                    sets.get(set).is_some_and(|set| set.contains(&address)) != *inverted
                }
                Expression::PortIn(ranges) => {
                    let port = u16::from_be_bytes([register[0], register[1]]);
                    ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
                }
                Expression::Count(_) => {
                    counted.push(rule.comment.clone());
                    true
                }
                Expression::Verdict(Verdict::Return) => return (Action::Allow, counted),
                Expression::Verdict(Verdict::Drop) => return (Action::Drop, counted),
                Expression::RejectWithReset | Expression::RejectUnreachable => return (Action::Reject, counted),
                other => panic!("not in a container's chain: {other:?}"),
            };
            if !goes_on {
                break;
            }
        }
    }
    (Action::Allow, counted)
}

fn load(register: &mut Vec<u8>, value: &[u8]) -> bool {
    *register = value.to_vec();
    true
}

fn transport(flow: &Flow) -> [u8; 4] {
    if flow.protocol == PROTOCOL_ICMP {
        return [flow.icmp_type, flow.icmp_code, 0, 0];
    }
    let (source, destination) = (flow.source_port.to_be_bytes(), flow.destination_port.to_be_bytes());
    [source[0], source[1], destination[0], destination[1]]
}

/// Few values, so that rules and flows meet.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![1_u16..12, Just(255), Just(256), Just(65_534), Just(65_535)]
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    (0_u8..4, 0_u8..4).prop_map(|(third, fourth)| Ipv4Addr::new(192, 0, third, fourth))
}

fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (port(), port()).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    prop::collection::vec(range, 0..4)
}

fn matches() -> impl Strategy<Value = Match> {
    let ports = || {
        (ranges(), ranges()).prop_map(|(source, destination)| Ports {
            source: source.try_into().unwrap(),
            destination: destination.try_into().unwrap(),
        })
    };
    prop_oneof![
        ports().prop_map(Match::Tcp),
        ports().prop_map(Match::Udp),
        prop::option::of((0_u8..4, prop::option::of(0_u8..3))).prop_map(|icmp| Match::Icmp4 {
            icmp_type: icmp.map(|(icmp_type, _)| icmp_type),
            icmp_code: icmp.and_then(|(_, icmp_code)| icmp_code),
        }),
    ]
}

prop_compose! {
    fn a_rule()(
        enabled in prop::bool::weighted(0.8),
        action in prop_oneof![Just(Action::Allow), Just(Action::Reject), Just(Action::Drop)],
        matches in matches(),
        peer in prop::option::of((address(), prop_oneof![Just(0_u8), Just(24), Just(31), Just(32)])),
        host in prop::option::weighted(0.4, prop_oneof![Just("a.test"), Just("b.test")]),
    ) -> FirewallRule {
        let host = host.map(|host| host.to_owned().try_into().unwrap());
        let peer = peer.filter(|_| host.is_none()).map(|(address, prefix)| Ipv4Net::new(address, prefix).unwrap());
        let description = String::new().try_into().unwrap();
        FirewallRule { id: RuleId::generate(), enabled, action, matches, peer, host, description }
    }
}

prop_compose! {
    fn a_flow()(
        protocol in prop_oneof![Just(PROTOCOL_TCP), Just(PROTOCOL_UDP), Just(PROTOCOL_ICMP), Just(47_u8)],
        source in address(),
        destination in address(),
        source_port in port(),
        destination_port in port(),
        icmp_type in 0_u8..4,
        icmp_code in 0_u8..3,
    ) -> Flow {
        Flow { protocol, source, destination, source_port, destination_port, icmp_type, icmp_code }
    }
}

fn policy(direction: Direction, rules: Vec<FirewallRule>) -> Policy {
    let mut spec = FirewallSpec::default();
    match direction {
        Direction::Ingress => spec.ingress = rules.try_into().unwrap(),
        Direction::Egress => spec.egress = rules.try_into().unwrap(),
    }
    Policy {
        id: ContainerId::generate(),
        owner: UserId::generate(),
        interface: "hy000000000000".to_owned(),
        address: Ipv4Addr::new(10, 64, 0, 2),
        rules: spec,
        egress: Egress::Direct,
    }
}

fn network() -> Ipv4Net {
    "10.64.0.0/16".parse().unwrap()
}

proptest! {
    #[test]
    fn the_compiled_chain_decides_as_the_rules_say(
        egress in any::<bool>(),
        rules in prop::collection::vec(a_rule(), 0..8),
        flows in prop::collection::vec(a_flow(), 1..32),
        resolved in prop::collection::vec(prop::option::of(prop::collection::btree_set(address(), 0..6)), 4),
    ) {
        let direction = if egress { Direction::Egress } else { Direction::Ingress };
        let rules = rules.into_iter().map(|rule| match direction {
            Direction::Egress => rule,
            Direction::Ingress => FirewallRule { host: None, ..rule },
        });
        let policy = policy(direction, rules.collect());
        // What the agent's answers make of the sets.
        let mut sets = BTreeMap::new();
        let mut known = Vec::new();
        let kinds = Purpose::ANSWERED.into_iter().flat_map(|purpose| ["a.test", "b.test"].map(|host| (purpose, host)));
        for ((purpose, host), mut addresses) in kinds.zip(resolved).filter_map(|(kind, found)| Some((kind, found?))) {
            if purpose == Purpose::Refuse {
                addresses.insert(RESOLVED);
            }
            sets.insert(names::host_set(policy.id, purpose, host), addresses.clone());
            known.push(((purpose, host.to_owned()), addresses));
        }
        let known = Known::of(known);
        let rules = policy.rules.rules(direction);
        let chain = compile(&policy, network(), direction);
        for flow in flows {
            let (action, counted) = run(&chain, &flow, &sets);
            prop_assert_eq!(action, verdict::decide(rules, direction, &flow, &known), "{:?}", flow);
            // One decision, counted once, by an enabled rule.
            prop_assert!(counted.len() <= 1);
            let enabled = |rule: &&FirewallRule| rule.enabled;
            let names: Vec<_> = rules.iter().filter(enabled).map(|rule| format!("rule {}", rule.id)).collect();
            prop_assert!(counted.iter().all(|comment| names.contains(comment) || names.iter().any(|name| comment.starts_with(name))));
        }
    }

    #[test]
    fn merged_ranges_hold_the_same_ports_and_are_apart(ranges in ranges()) {
        let merged = merge(&ranges);
        for port in 1..=u16::MAX {
            let before = ranges.iter().any(|range| (range.first()..=range.last()).contains(&port));
            let after = merged.iter().any(|(first, last)| (*first..=*last).contains(&port));
            prop_assert_eq!(before, after, "port {}", port);
        }
        prop_assert!(merged.windows(2).all(|pair| u32::from(pair[0].1) + 1 < u32::from(pair[1].0)));
    }
}

#[test]
fn equal_policies_have_equal_comments_and_different_ones_have_not() {
    let id = RuleId::generate();
    let rule = |peer: &str| FirewallRule {
        id,
        enabled: true,
        action: Action::Drop,
        matches: Match::Tcp(Ports::default()),
        peer: Some(peer.parse().unwrap()),
        host: None,
        description: String::new().try_into().unwrap(),
    };
    let mut one = policy(Direction::Ingress, vec![rule("192.0.2.0/24")]);
    let comments = |policy: &Policy| {
        compile(policy, network(), Direction::Ingress).into_iter().map(|rule| rule.comment).collect::<Vec<_>>()
    };
    let before = comments(&one);
    assert_eq!(before, comments(&one.clone()));
    one.rules.ingress = vec![rule("192.0.2.0/25")].try_into().unwrap();
    assert_ne!(before, comments(&one));
}
