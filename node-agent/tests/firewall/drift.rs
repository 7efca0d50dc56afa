//! Strangers' changes, refusals, repair and removal, cross-checked with the `nft` program.

use super::{probe::*, world::*};
use hoody_agent::firewall::{Firewall, FirewallError};
use hoody_protocol::{
    firewall::{Action, Match},
    id::{ContainerId, UserId},
};

#[test]
fn the_nft_program_shows_what_was_meant() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let list = Match::Tcp(ports(&[(1000, 2000)], &[(80, 90), (443, 443)]));
    let ingress = vec![from("192.0.2.0/25", rule(Action::Reject, list)), rule(Action::Allow, icmp(Some(8), Some(0)))];
    let egress = vec![from("192.0.2.7/32", rule(Action::Drop, udp(53)))];
    let ids: Vec<_> = ingress.iter().chain(&egress).map(|rule| rule.id).collect();
    world.set(&mut container, ingress, egress);
    let listing = world.listing();
    let (id, interface, address) = (container.policy.id, &container.policy.interface, container.address());
    let set = listing.split("set ports_").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    for line in [
        "elements = { 80-90, 443 }".to_owned(),
        format!(
            "ip saddr 192.0.2.0/25 tcp sport 1000-2000 tcp dport @ports_{} counter name \"rule_{id}_{}\" reject with tcp reset comment \"rule {}\"",
            set, ids[0], ids[0]
        ),
        format!("icmp type echo-request icmp code net-unreachable counter name \"rule_{id}_{}\" return", ids[1]),
        format!("ip daddr 192.0.2.7 udp dport 53 counter name \"rule_{id}_{}\" drop", ids[2]),
        format!("ip daddr 10.64.0.0/16 ip daddr != @own_{} drop", container.policy.owner),
        format!("\"{interface}\" . {address}"),
        format!("\"{interface}\" : goto in_{id}"),
        format!("\"{interface}\" : goto out_{id}"),
        "ct direction reply ct state established,related return".to_owned(),
        "iifname . ip saddr != @bindings drop".to_owned(),
        "iifname vmap @egress".to_owned(),
        "type nat hook postrouting priority srcnat; policy accept;".to_owned(),
        "ip saddr 10.64.0.0/16 ip daddr != 10.64.0.0/16 masquerade".to_owned(),
        "ct state new add @connections { ip saddr ct count over 4096 } drop".to_owned(),
    ] {
        assert!(listing.contains(&line), "{line}\nis not in\n{listing}");
    }
    let json = world.node.run("nft -j list table inet hoody");
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rules =
        parsed["nftables"].as_array().unwrap().iter().filter(|item| item["rule"]["chain"] == format!("in_{id}"));
    assert_eq!(rules.count(), 5);
}

#[test]
fn a_refused_change_leaves_the_old_one_in_force() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _listeners = [80, 81].map(|port| listen(&container.namespace, port));
    world.set(&mut container, vec![rule(Action::Drop, tcp(80))], vec![]);
    // A set of another shape where the new owner's set belongs.
    let owner = UserId::generate();
    world.node.run(&format!("nft add set inet hoody own_{owner} {{ type ipv6_addr; }}"));
    let mut next = container.policy.clone();
    next.owner = owner;
    next.rules.ingress = vec![rule(Action::Drop, tcp(81))].try_into().unwrap();
    let error = world.wait(world.firewall.apply(&next)).unwrap_err();
    let named =
        matches!(&error, FirewallError::Refused { object, .. } if object.to_string().contains(&owner.to_string()));
    assert!(named, "{error:?}");
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Dropped);
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Passed);
    assert!(world.is_applied(&container));
    world.node.run(&format!("nft delete set inet hoody own_{owner}"));
    world.wait(world.firewall.apply(&next)).unwrap();
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Dropped);
}

#[test]
fn a_flushed_ruleset_is_repaired() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _inside = listen(&container.namespace, 80);
    let _outside = listen(&world.outside, 80);
    world.set(&mut container, vec![rule(Action::Drop, tcp(81))], vec![]);
    world.node.run("nft flush ruleset");
    assert!(!world.is_applied(&container));
    let unprepared = world.wait(world.firewall.apply(&container.policy));
    assert!(matches!(unprepared, Err(FirewallError::Unprepared { .. })), "{unprepared:?}");
    world.wait(world.firewall.prepare()).unwrap();
    // Until its policy is back, a container has nothing.
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Dropped);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Dropped);
    world.apply(&container);
    assert!(world.is_applied(&container));
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Passed);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Passed);
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Dropped);
}

#[test]
fn every_strangers_change_is_noticed_and_put_right() {
    let world = World::new();
    let container = world.container(UserId::generate());
    let (id, interface, address) = (container.policy.id, &container.policy.interface, container.address());
    let owner = container.policy.owner;
    let wanted = world.listing();
    for damage in [
        format!("nft insert rule inet hoody in_{id} accept"),
        format!("nft add rule inet hoody out_{id} accept"),
        format!("nft flush chain inet hoody out_{id}"),
        format!("nft delete element inet hoody egress {{ {interface} }}"),
        format!("nft delete element inet hoody ingress {{ {interface} }}"),
        format!("nft delete element inet hoody bindings {{ {interface} . {address} }}"),
        format!("nft delete element inet hoody own_{owner} {{ {address} }}"),
        format!("nft flush set inet hoody own_{owner}"),
    ] {
        assert!(world.is_applied(&container), "before {damage}");
        world.node.run(&damage);
        assert!(!world.is_applied(&container), "after {damage}");
        world.apply(&container);
        assert!(world.is_applied(&container), "repaired {damage}");
        assert_eq!(world.listing(), wanted, "{damage}");
    }
    for damage in ["nft flush chain inet hoody forward", "nft delete chain inet hoody postrouting"] {
        world.node.run(damage);
        world.wait(world.firewall.prepare()).unwrap();
        assert!(world.is_applied(&container));
        let sorted = |listing: &str| {
            let mut lines: Vec<_> = listing.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&world.listing()), sorted(&wanted), "{damage}");
    }
}

#[test]
fn a_removed_container_leaves_nothing() {
    let mut world = World::new();
    let empty = world.listing();
    let owner = UserId::generate();
    let (mut one, other) = (world.container(owner), world.container(owner));
    let listener = listen(&one.namespace, 80);
    let _pair = pair(&world.outside, one.address(), &listener);
    world.set(&mut one, vec![rule(Action::Allow, tcp(80))], vec![rule(Action::Drop, udp(53))]);
    let mut both = vec![one.policy.id, other.policy.id];
    both.sort();
    assert_eq!(world.wait(world.firewall.inventory()).unwrap(), both);
    world.wait(world.firewall.remove(one.policy.id)).unwrap();
    assert_eq!(world.wait(world.firewall.inventory()).unwrap(), [other.policy.id]);
    assert!(!world.listing().contains(&one.policy.id.to_string()));
    assert!(!world.listing().contains(&one.address().to_string()));
    assert!(world.is_applied(&other));
    // By an agent that has forgotten everything, twice, and one that never was.
    world.restart();
    for id in [other.policy.id, other.policy.id, ContainerId::generate()] {
        world.wait(world.firewall.remove(id)).unwrap();
    }
    assert_eq!(world.wait(world.firewall.inventory()).unwrap(), []);
    assert_eq!(world.listing(), empty);
}

#[test]
fn half_a_container_can_be_removed() {
    let world = World::new();
    let empty = world.listing();
    let container = world.container(UserId::generate());
    let (id, owner) = (container.policy.id, container.policy.owner);
    world.node.run("nft flush map inet hoody egress");
    world.node.run(&format!("nft flush set inet hoody own_{owner}"));
    world.node.run(&format!("nft flush chain inet hoody out_{id}"));
    world.node.run(&format!("nft delete chain inet hoody out_{id}"));
    world.wait(world.firewall.remove(id)).unwrap();
    world.wait(world.firewall.prepare()).unwrap();
    assert_eq!(world.listing(), empty);
}

#[test]
fn addresses_and_interfaces_are_not_shared() {
    let world = World::new();
    let owner = UserId::generate();
    let (one, other) = (world.container(owner), world.container(owner));
    let mut policy = one.policy.clone();
    policy.address = other.address();
    assert!(matches!(world.wait(world.firewall.apply(&policy)), Err(FirewallError::Policy { .. })));
    policy = one.policy.clone();
    policy.interface = other.policy.interface.clone();
    assert!(matches!(world.wait(world.firewall.apply(&policy)), Err(FirewallError::Policy { .. })));
    for interface in ["eth0", "hy", "hy0123456789abcdef"] {
        policy = one.policy.clone();
        policy.interface = interface.to_owned();
        assert!(matches!(world.wait(world.firewall.apply(&policy)), Err(FirewallError::Policy { .. })));
    }
    assert!(world.is_applied(&one) && world.is_applied(&other));
}

#[test]
fn a_container_can_change_its_address_and_interface() {
    let world = World::new();
    let container = world.container(UserId::generate());
    let mut policy = container.policy.clone();
    policy.address = "10.64.77.7".parse().unwrap();
    policy.interface = "hyffffffffffff".to_owned();
    world.wait(world.firewall.apply(&policy)).unwrap();
    let listing = world.listing();
    assert!(listing.contains("\"hyffffffffffff\" . 10.64.77.7"), "{listing}");
    assert!(!listing.contains(&container.policy.interface), "{listing}");
    assert!(!listing.contains(&container.address().to_string()), "{listing}");
}

#[test]
fn chains_of_others_that_drop_are_reported() {
    let world = World::new();
    assert_eq!(world.wait(world.firewall.foreign_drops()).unwrap(), []);
    world.node.run("nft add table ip foreign");
    world.node.run("nft add chain ip foreign f { type filter hook forward priority 0 ; policy drop ; }");
    let found = world.wait(world.firewall.foreign_drops()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].table.as_str(), found[0].chain.as_str()), ("foreign", "f"));
}
