//! What a policy says about a connection, decided here instead of in the kernel.
//!
//! Used to find the connections that a changed policy no longer allows. It must agree with
//! [`super::chain`]; a property test compares the two.

use super::{
    hosts::Known,
    instructions::{PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP},
    names::Purpose,
};
use hoody_protocol::firewall::{Action, Direction, FirewallRule, Match, PortRange, Ports};
use std::net::Ipv4Addr;

/// The first packet of a connection as the container's chains see it: after the destination and before
/// the source address is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: u8,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// 0 where the protocol has no ports.
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// 0 where it is not ICMP.
    pub(super) icmp_type: u8,
    pub(super) icmp_code: u8,
}

/// What happens to the flow's first packet in the chain of this direction.
pub(super) fn decide(rules: &[FirewallRule], direction: Direction, flow: &Flow, hosts: &Known) -> Action {
    let mut enabled = rules.iter().filter(|rule| rule.enabled);
    if let Some(first) = enabled.clone().find(|rule| matches(rule, direction, flow, hosts)) {
        return first.action;
    }
    if enabled.any(|rule| rule.action == Action::Allow) { Action::Drop } else { Action::Allow }
}

fn matches(rule: &FirewallRule, direction: Direction, flow: &Flow, hosts: &Known) -> bool {
    let peer = match direction {
        Direction::Egress => flow.destination,
        Direction::Ingress => flow.source,
    };
    if rule.peer.is_some_and(|network| !network.contains(&peer)) {
        return false;
    }
    if rule.host.as_ref().is_some_and(|host| !hosts.matches(Purpose::of(rule.action), host, peer)) {
        return false;
    }
    match &rule.matches {
        Match::Tcp(ports) => flow.protocol == PROTOCOL_TCP && ports_match(ports, flow),
        Match::Udp(ports) => flow.protocol == PROTOCOL_UDP && ports_match(ports, flow),
        Match::Icmp4 { icmp_type, icmp_code } => {
            flow.protocol == PROTOCOL_ICMP
                && icmp_type.is_none_or(|wanted| wanted == flow.icmp_type)
                && icmp_code.is_none_or(|wanted| wanted == flow.icmp_code)
        }
    }
}

fn ports_match(ports: &Ports, flow: &Flow) -> bool {
    let within = |ranges: &[PortRange], port: u16| {
        ranges.is_empty() || ranges.iter().any(|range| (range.first()..=range.last()).contains(&port))
    };
    within(&ports.source, flow.source_port) && within(&ports.destination, flow.destination_port)
}
