//! What no policy can open: other owners, the host, other addresses, IPv6, unknown interfaces.

use super::{
    egress::{count, seen},
    probe::*,
    world::*,
};
use hoody_agent::firewall::{Firewall, NftConfig};
use hoody_protocol::{firewall::Action, id::UserId};
use std::net::Ipv4Addr;

#[test]
fn owners_are_apart_and_containers_of_one_owner_are_not() {
    let world = World::new();
    let (owner, stranger) = (UserId::generate(), UserId::generate());
    let (mut one, two) = (world.container(owner), world.container(owner));
    let mut other = world.container(stranger);
    let _listeners = [&one, &two, &other].map(|container| listen(&container.namespace, 80));
    world.set(&mut one, vec![rule(Action::Allow, any_tcp())], vec![rule(Action::Allow, any_tcp())]);
    world.set(&mut other, vec![rule(Action::Allow, any_tcp())], vec![rule(Action::Allow, any_tcp())]);
    assert_eq!(tcp_fate(&one.namespace, two.address(), 80), Passed);
    assert_eq!(tcp_fate(&two.namespace, one.address(), 80), Passed);
    for container in [&one, &two] {
        assert_eq!(tcp_fate(&container.namespace, other.address(), 80), Dropped);
        assert_eq!(tcp_fate(&other.namespace, container.address(), 80), Dropped);
    }
    // Given to the other owner, it changes sides, and connections that crossed are cut.
    let listener = listen(&two.namespace, 81);
    let (mut client, mut server) = pair(&one.namespace, two.address(), &listener);
    assert!(flows(&mut client, &mut server, ARRIVAL));
    one.policy.owner = stranger;
    world.apply(&one);
    assert!(!flows(&mut client, &mut server, SILENCE));
    assert!(!flows(&mut server, &mut client, SILENCE));
    assert_eq!(tcp_fate(&one.namespace, other.address(), 80), Passed);
    assert_eq!(tcp_fate(&one.namespace, two.address(), 80), Dropped);
}

#[test]
fn the_host_is_out_of_reach_and_reaches_the_container() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _host = listen(&world.node, 80);
    let _inside = listen(&container.namespace, 80);
    let dns = udp_socket(&world.node, 53);
    world.set(&mut container, vec![], vec![rule(Action::Allow, any_tcp()), rule(Action::Allow, any_udp())]);
    for address in [GATEWAY, NODE] {
        assert_eq!(tcp_fate(&container.namespace, address, 80), Dropped);
        assert_eq!(udp_fate(&container.namespace, address, &dns), Dropped);
        assert_eq!(ping(&container.namespace, address, 8, 0), Dropped);
    }
    assert_eq!(tcp_fate(&world.node, container.address(), 80), Passed);
    assert_eq!(ping(&world.node, container.address(), 8, 0), Passed);
}

#[test]
fn other_source_addresses_are_dropped() {
    let world = World::new();
    let owner = UserId::generate();
    let (container, neighbour) = (world.container(owner), world.container(owner));
    world.node.run("sysctl -q -w net.ipv4.conf.all.rp_filter=0");
    let outside = udp_socket(&world.outside, 9);
    let inside = udp_socket(&neighbour.namespace, 9);
    for (to, receiver) in [(OUTSIDE, &outside), (neighbour.address(), &inside)] {
        for source in [neighbour.address(), Ipv4Addr::new(10, 64, 9, 9), OUTSIDE, GATEWAY] {
            if source != to {
                send_spoofed(&container.namespace, source, to, 9);
            }
        }
        assert!(!receives(receiver), "to {to}");
        send_spoofed(&container.namespace, container.address(), to, 9);
        assert!(receives(receiver), "its own address to {to}");
    }
    // Nor can the outside pretend to be a container.
    world.node.run("sysctl -q -w net.ipv4.conf.up0.rp_filter=0");
    send_spoofed(&world.outside, container.address(), neighbour.address(), 9);
    assert!(!receives(&inside));
}

#[test]
fn ipv6_passes_in_no_direction() {
    let world = World::new();
    let container = world.container(UserId::generate());
    let (interface, inside) = (&container.policy.interface, &container.namespace);
    world.node.run(&format!("ip address add fd00::1/64 dev {interface} nodad"));
    inside.run("ip address add fd00::2/64 dev eth0 nodad");
    // Through the node, to where the container's own rules let everything go.
    world.node.run("sysctl -q -w net.ipv6.conf.all.forwarding=1");
    world.node.run("ip address add fd01::1/64 dev up0 nodad");
    world.outside.run("ip address add fd01::2/64 dev eth0 nodad");
    world.outside.run("ip route add fd00::/64 via fd01::1");
    inside.run("ip route add fd01::/64 via fd00::1");
    // It needs no answer to learn its neighbour's address.
    let address = world.node.run(&format!("cat /sys/class/net/{interface}/address"));
    inside.run(&format!("ip neigh replace fd00::1 lladdr {} dev eth0", address.trim()));
    let receivers = [
        (inside, "[fd00::2]:9", &world.node),
        (&world.node, "[fd00::1]:9", inside),
        (inside, "[fd00::2]:9", &world.outside),
        (&world.outside, "[fd01::2]:9", inside),
    ];
    for (at, address, sender) in receivers {
        let receiver = at.within(|| std::net::UdpSocket::bind("[::]:9").unwrap());
        receiver.set_read_timeout(Some(SILENCE)).unwrap();
        let socket = sender.within(|| std::net::UdpSocket::bind("[::]:0").unwrap());
        let _ = socket.send_to(b"x", address);
        assert!(!receives(&receiver), "{address}");
    }
}

#[test]
fn what_belongs_to_no_connection_does_not_leave() {
    let world = World::new();
    let container = world.container(UserId::generate());
    count(&world);
    assert_eq!(ping(&container.namespace, OUTSIDE, 8, 0), Passed);
    let before = seen(&world);
    // An answer to what nobody asked: there is no connection by which its source would be translated.
    assert_eq!(ping(&container.namespace, OUTSIDE, 0, 0), Dropped);
    assert_eq!(seen(&world), before);
}

#[test]
fn link_local_addresses_are_not_forwarded() {
    let world = World::new();
    let container = world.container(UserId::generate());
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    world.outside.run("ip address add 169.254.169.254/32 dev lo");
    world.node.run(&format!("ip route add 169.254.169.254/32 via {OUTSIDE}"));
    let _listener = listen(&world.outside, 80);
    assert_eq!(tcp_fate(&world.node, metadata, 80), Passed);
    assert_eq!(tcp_fate(&container.namespace, metadata, 80), Dropped);
}

#[test]
fn an_interface_without_policy_passes_nothing() {
    let world = World::new();
    let container = world.container(UserId::generate());
    let _inside = listen(&container.namespace, 80);
    let _outside = listen(&world.outside, 80);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Passed);
    // Its address is known, and the way to its chain is not there.
    world.node.run("nft flush map inet hoody egress");
    world.node.run("nft flush map inet hoody ingress");
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Dropped);
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Dropped);
    assert_eq!(tcp_fate(&world.node, container.address(), 80), Dropped);
    world.apply(&container);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Passed);
    world.wait(world.firewall.remove(container.policy.id)).unwrap();
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Dropped);
    assert_eq!(tcp_fate(&world.outside, container.address(), 80), Dropped);
    assert_eq!(tcp_fate(&world.node, container.address(), 80), Dropped);
}

#[test]
fn connections_are_limited_per_container() {
    const LIMIT: u32 = 3;
    let world = World::with(NftConfig { connections_per_container: LIMIT, ..NftConfig::new(NETWORK.parse().unwrap()) });
    let owner = UserId::generate();
    let (greedy, modest) = (world.container(owner), world.container(owner));
    let _outside = listen(&world.outside, 80);
    let held: Vec<_> = (0..LIMIT).map(|_| connect(&greedy.namespace, OUTSIDE, 80).unwrap()).collect();
    assert_eq!(tcp_fate(&greedy.namespace, OUTSIDE, 80), Dropped);
    assert_eq!(tcp_fate(&modest.namespace, OUTSIDE, 80), Passed);
    // What stands goes on, also over a replacement of the policy.
    world.apply(&greedy);
    assert_eq!(tcp_fate(&greedy.namespace, OUTSIDE, 80), Dropped);
    drop(held);
}

#[test]
fn what_the_operator_closes_no_rule_opens() {
    let metadata = Ipv4Addr::new(100, 100, 100, 200);
    let plane = std::net::SocketAddrV4::new(OUTSIDE, 7443);
    let world = World::with(NftConfig {
        closed_networks: vec!["100.100.100.200/32".parse().unwrap()],
        closed_endpoints: vec![plane],
        ..NftConfig::new(NETWORK.parse().unwrap())
    });
    let mut container = world.container(UserId::generate());
    world.set(&mut container, vec![], vec![rule(Action::Allow, any_tcp()), rule(Action::Allow, any_udp())]);
    world.outside.run(&format!("ip address add {metadata}/32 dev lo"));
    world.node.run(&format!("ip route add {metadata}/32 via {OUTSIDE}"));
    let _listener = listen(&world.outside, 80);
    let _same_port = listen(&world.outside, plane.port());
    let (nodes, other) = (udp_socket(&world.outside, plane.port()), udp_socket(&world.outside, 7444));
    assert_eq!(tcp_fate(&world.node, metadata, 80), Passed);
    assert_eq!(tcp_fate(&container.namespace, metadata, 80), Dropped);
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &nodes), Dropped);
    // The rest of that machine is as open as any other: its API is for containers too.
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &other), Passed);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, plane.port()), Passed);
    assert_eq!(udp_fate(&world.node, OUTSIDE, &nodes), Passed);
    // A name that leads elsewhere by now, while containers run.
    let moved = std::net::SocketAddrV4::new(OUTSIDE, 7444);
    world.wait(world.firewall.close_endpoints(vec![moved])).unwrap();
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &other), Dropped);
    assert_eq!(udp_fate(&container.namespace, OUTSIDE, &nodes), Dropped, "links of before may still be there");
    assert!(world.wait(world.firewall.is_prepared()).unwrap() && world.is_applied(&container));
}
