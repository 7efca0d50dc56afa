//! What rules let pass: verdicts, lists, order, ports, ICMP, both sides.

use super::{probe::*, world::*};
use hoody_protocol::{
    firewall::{Action, Match},
    id::UserId,
};

#[test]
fn open_in_both_directions_by_default() {
    let world = World::new();
    let container = world.container(UserId::generate());
    let _inside = listen(&container.namespace, 80);
    let outside = listen(&world.outside, 80);
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Passed);
    assert_eq!(tcp_fate(&world.node, container.address(), 80), Passed);
    assert_eq!(ping(&world.outside, container.address(), 8, 0), Passed);
    assert_eq!(ping(&container.namespace, OUTSIDE, 8, 0), Passed);
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &udp_socket(&world.outside, 53)), Passed);
    assert_eq!(udp_fate(&world.node, container.address(), &udp_socket(&container.namespace, 53)), Passed);
    // The outside sees the node's address.
    let _client = connect(&container.namespace, OUTSIDE, 80).unwrap();
    assert_eq!(outside.accept().unwrap().1.ip(), NODE);
}

#[test]
fn the_node_says_at_once_where_it_knows_no_way() {
    let world = World::new();
    let container = world.container(UserId::generate());
    let nowhere = std::net::Ipv4Addr::new(203, 0, 113, 9);
    // The answer to a packet that never began a connection is an answer all the same.
    assert_eq!(ping(&container.namespace, nowhere, 8, 0), Rejected);
}

#[test]
fn ingress_drops_and_rejects_also_what_the_host_sends() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _listeners = [80, 81, 82].map(|port| listen(&container.namespace, port));
    let dns = udp_socket(&container.namespace, 53);
    let rules = vec![
        rule(Action::Drop, tcp(80)),
        rule(Action::Reject, tcp(81)),
        rule(Action::Reject, udp(53)),
        disabled(&rule(Action::Drop, tcp(82))),
    ];
    world.set(&mut container, rules, vec![]);
    for sender in [&world.outside, &world.node] {
        assert_eq!(tcp_fate(sender, container.address(), 80), Dropped);
        assert_eq!(tcp_fate(sender, container.address(), 81), Rejected);
        assert_eq!(tcp_fate(sender, container.address(), 82), Passed);
        assert_eq!(udp_fate(sender, container.address(), &dns), Rejected);
        assert_eq!(ping(sender, container.address(), 8, 0), Passed);
    }
}

#[test]
fn egress_drops_and_rejects() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _listeners = [80, 81, 82].map(|port| listen(&world.outside, port));
    let dns = udp_socket(&world.outside, 53);
    let elsewhere = from("203.0.113.0/24", rule(Action::Drop, tcp(82)));
    let here = from("198.51.100.0/24", rule(Action::Reject, udp(53)));
    let rules = vec![rule(Action::Drop, tcp(80)), rule(Action::Reject, tcp(81)), elsewhere, here];
    world.set(&mut container, vec![], rules);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Dropped);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 81), Rejected);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 82), Passed);
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &dns), Rejected);
}

#[test]
fn an_allow_rule_makes_its_direction_a_list_and_leaves_the_other_open() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _listeners = [80, 81].map(|port| listen(&container.namespace, port));
    let _outside = listen(&world.outside, 80);
    let dns = udp_socket(&world.outside, 53);
    world.set(&mut container, vec![rule(Action::Allow, tcp(80))], vec![]);
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Passed);
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Dropped);
    assert_eq!(ping(&world.outside, container.address(), 8, 0), Dropped);
    // Answers to what the container asks are not new traffic.
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Passed);
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &dns), Passed);
    world.set(&mut container, vec![], vec![rule(Action::Allow, udp(53))]);
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &dns), Passed);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Dropped);
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Passed);
    // Switched off, it lists nothing.
    let off = disabled(&rule(Action::Allow, udp(53)));
    world.set(&mut container, vec![], vec![off]);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Passed);
}

#[test]
fn the_first_match_wins() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _listeners = [80, 81].map(|port| listen(&container.namespace, port));
    let all = Match::Tcp(ports(&[], &[(1, 65_535)]));
    let rules = vec![
        from("198.51.100.2/32", rule(Action::Reject, tcp(80))),
        rule(Action::Allow, all.clone()),
        rule(Action::Drop, all),
    ];
    world.set(&mut container, rules, vec![]);
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Rejected);
    assert_eq!(tcp_fate(&world.node, container.address(), 80), Passed);
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Passed);
}

#[test]
fn ports_match_in_lists_of_ranges_at_both_ends() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let open = [79, 80, 85, 91, 442, 443, 444, 65_535];
    let _listeners = open.map(|port| listen(&container.namespace, port));
    // Overlapping, adjacent and unordered on purpose.
    let several = ports(&[], &[(443, 443), (85, 90), (80, 86), (91, 91), (65_000, 65_535)]);
    let several = rule(Action::Drop, Match::Tcp(several));
    world.set(&mut container, vec![several.clone()], vec![]);
    let fates = open.map(|port| tcp_fate(&world.outside, container.address(), port));
    assert_eq!(fates, [Passed, Dropped, Dropped, Dropped, Passed, Dropped, Passed, Dropped]);
    // One rule, one counter: every attempt is in it (a dropped SYN may be sent again meanwhile).
    assert!(world.count(&container, several.id).unwrap().0 >= 5);
    let both = ports(&[(2000, 2010), (3000, 3000)], &[(80, 85)]);
    world.set(&mut container, vec![rule(Action::Reject, Match::Tcp(both))], vec![]);
    let fate = |source, port| tcp_fate_from(&world.outside, source, container.address(), port);
    assert_eq!(fate(2005, 80), Rejected);
    assert_eq!(fate(3000, 85), Rejected);
    assert_eq!(fate(2011, 80), Passed);
    assert_eq!(fate(2005, 443), Passed);
}

#[test]
fn icmp_matches_by_type_and_code() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    world.set(&mut container, vec![rule(Action::Drop, icmp(Some(8), Some(1)))], vec![]);
    assert_eq!(ping(&world.outside, container.address(), 8, 0), Passed);
    assert_eq!(ping(&world.outside, container.address(), 8, 1), Dropped);
    world.set(&mut container, vec![rule(Action::Drop, icmp(Some(8), None))], vec![]);
    assert_eq!(ping(&world.outside, container.address(), 8, 0), Dropped);
    world.set(&mut container, vec![rule(Action::Reject, icmp(None, None))], vec![]);
    assert_eq!(ping(&world.outside, container.address(), 8, 0), Rejected);
    world.set(&mut container, vec![rule(Action::Drop, icmp(Some(13), None))], vec![]);
    assert_eq!(ping(&world.outside, container.address(), 8, 0), Passed);
}

#[test]
fn both_containers_are_asked() {
    let world = World::new();
    let owner = UserId::generate();
    let (mut one, mut other) = (world.container(owner), world.container(owner));
    let _listeners = [80, 81, 82].map(|port| listen(&other.namespace, port));
    let allow = Match::Tcp(ports(&[], &[(80, 81)]));
    world.set(&mut one, vec![], vec![rule(Action::Allow, allow)]);
    world.set(&mut other, vec![rule(Action::Drop, tcp(80))], vec![]);
    // Allowed by the one, dropped by the other; allowed by both; dropped by the one.
    assert_eq!(tcp_fate(&one.namespace, other.address(), 80), Dropped);
    assert_eq!(tcp_fate(&one.namespace, other.address(), 81), Passed);
    assert_eq!(tcp_fate(&one.namespace, other.address(), 82), Dropped);
}
