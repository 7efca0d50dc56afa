//! Egress through a proxy and blocked egress: what is taken, what is dropped, and that nothing passes in between.

use super::{probe::*, world::*};
use hoody_agent::{
    dial::DialPolicy,
    egress::{Egress as _, Relay, listener_address},
    firewall::{Egress, Firewall},
};
use hoody_protocol::{firewall::Action, id::UserId};
use hoody_proxy::control::open_listeners;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Instant,
};

/// A world whose node routes captured packets, and whose outside counts what comes to it.
fn world() -> World {
    let world = World::new();
    route(&world);
    count(&world);
    world
}

/// Counts what comes to the outside from now on.
pub(crate) fn count(world: &World) {
    world.outside.run("nft add table ip seen");
    world.outside.run("nft add chain ip seen in { type filter hook prerouting priority -300 ; }");
    world.outside.run("nft add counter ip seen all_of_them");
    world.outside.run("nft add rule ip seen in counter name all_of_them");
}

fn route(world: &World) {
    world.node.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            Relay::start("/nowhere".into(), DialPolicy::open("/nowhere".into(), Vec::new())).prepare().await.unwrap()
        });
    });
}

/// Packets that have come to the outside so far.
pub(crate) fn seen(world: &World) -> u64 {
    let listing = world.outside.run("nft list counters table ip seen");
    let words: Vec<&str> = listing.split_whitespace().collect();
    let at = words.iter().rposition(|word| *word == "packets");
    words[at.unwrap() + 1].parse().unwrap()
}

/// The sockets to which the container's packets are taken.
fn taken(world: &World, container: &Container) -> (TcpListener, UdpSocket) {
    let listeners = world.node.within(|| open_listeners(listener_address(container.address())).unwrap());
    let (tcp, udp) = (TcpListener::from(listeners.tcp), UdpSocket::from(listeners.udp));
    tcp.set_nonblocking(false).unwrap();
    udp.set_nonblocking(false).unwrap();
    udp.set_read_timeout(Some(SILENCE)).unwrap();
    (tcp, udp)
}

fn set(world: &World, container: &mut Container, egress: Egress) {
    container.policy.egress = egress;
    world.apply(container);
    assert!(world.is_applied(container));
}

fn through_proxy(container: &Container) -> Egress {
    Egress::Proxy(listener_address(container.address()))
}

/// Everything a container can try, none of which may reach the outside.
fn try_everything(container: &Container) -> Vec<Fate> {
    let dns = container.namespace.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    for port in [53, 123, 443, 9] {
        dns.send_to(b"question", (OUTSIDE, port)).unwrap();
    }
    vec![
        tcp_fate(&container.namespace, OUTSIDE, 80),
        tcp_fate(&container.namespace, OUTSIDE, 53),
        ping(&container.namespace, OUTSIDE, 8, 0),
    ]
}

/// A connection of the container, taken in by the proxy.
fn proxied(container: &Container, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let to = SocketAddr::from((OUTSIDE, 80));
    let client = container.namespace.within(|| TcpStream::connect_timeout(&to, ARRIVAL)).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), container.address());
    assert_eq!(server.local_addr().unwrap(), SocketAddr::from((OUTSIDE, 80)), "the address that the container named");
    (client, server)
}

#[test]
fn everything_is_taken_or_dropped() {
    let world = world();
    let mut container = world.container(UserId::generate());
    let _web = listen(&world.outside, 80);
    let inside = listen(&container.namespace, 8080);
    let egress = through_proxy(&container);
    set(&world, &mut container, egress);
    assert_eq!(try_everything(&container), [Dropped; 3], "without a listener");
    assert_eq!(seen(&world), 0, "without a listener");
    let (tcp, udp) = taken(&world, &container);
    let (mut client, mut server) = proxied(&container, &tcp);
    assert!(flows(&mut client, &mut server, ARRIVAL) && flows(&mut server, &mut client, ARRIVAL));
    let socket = container.namespace.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    for to in [OUTSIDE, Ipv4Addr::new(9, 9, 9, 9), GATEWAY, NODE] {
        socket.send_to(b"question", (to, 53)).unwrap();
        assert!(receives(&udp), "dns to {to}");
    }
    assert_eq!(ping(&container.namespace, OUTSIDE, 8, 0), Dropped);
    // The node itself is reached by nobody; its address is one like all others.
    let _ssh = listen(&world.node, 22);
    let stranger = connect(&container.namespace, NODE, 22).unwrap();
    assert_eq!(tcp.accept().unwrap().0.local_addr().unwrap(), SocketAddr::from((NODE, 22)));
    drop(stranger);
    assert_eq!(seen(&world), 0);
    // What is begun towards it is answered.
    let (mut visitor, mut visited) = pair(&world.outside, container.address(), &inside);
    assert!(flows(&mut visitor, &mut visited, ARRIVAL) && flows(&mut visited, &mut visitor, ARRIVAL));
}

#[test]
fn the_firewall_is_asked_with_the_true_destination() {
    let world = world();
    let mut container = world.container(UserId::generate());
    let egress = through_proxy(&container);
    set(&world, &mut container, egress);
    let (tcp, _udp) = taken(&world, &container);
    let (mut client, mut server) = proxied(&container, &tcp);
    world.set(&mut container, vec![], vec![rule(Action::Allow, super::world::tcp(443))]);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 80), Dropped);
    assert!(!flows(&mut client, &mut server, SILENCE), "a connection that the rules do not allow any more");
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 443), Passed);
    world.set(&mut container, vec![], vec![rule(Action::Reject, super::world::tcp(443))]);
    assert_eq!(tcp_fate(&container.namespace, OUTSIDE, 443), Rejected);
    assert_eq!(seen(&world), 0);
}

#[test]
fn nothing_passes_where_a_part_of_it_is_missing() {
    let world = world();
    let mut container = world.container(UserId::generate());
    let _web = listen(&world.outside, 80);
    let egress = through_proxy(&container);
    set(&world, &mut container, egress);
    let (tcp, udp) = taken(&world, &container);
    drop(proxied(&container, &tcp));
    world.node.run("ip rule del fwmark 0x687900");
    assert_eq!(try_everything(&container), [Dropped; 3], "without the rule of the routing");
    route(&world);
    drop(proxied(&container, &tcp));
    world.node.run("nft flush map inet hoody capture");
    assert!(!world.is_applied(&container));
    assert_eq!(try_everything(&container), [Dropped; 3], "without the way to its chain");
    world.apply(&container);
    world.node.run(&format!("nft flush chain inet hoody via_{}", container.policy.id));
    assert!(!world.is_applied(&container));
    assert_eq!(try_everything(&container), [Dropped; 3], "with an empty chain");
    world.node.run("nft flush chain inet hoody prerouting");
    assert!(!world.wait(world.firewall.is_prepared()).unwrap());
    assert_eq!(try_everything(&container), [Dropped; 3], "without the hook");
    // A mark that somebody else sets is no way around either: what bears it is delivered here or nowhere.
    world.node.run("ip rule del fwmark 0x687900");
    world.node.run("nft add table ip stray");
    world.node.run("nft add chain ip stray before { type filter hook prerouting priority -140 ; }");
    world.node.run("nft add rule ip stray before meta mark set 0x687900");
    assert_eq!(try_everything(&container), [Dropped; 3], "without the hook, and marked by somebody else");
    world.node.run("nft delete table ip stray");
    route(&world);
    world.wait(world.firewall.prepare()).unwrap();
    world.apply(&container);
    drop(proxied(&container, &tcp));
    drop(tcp);
    drop(udp);
    world.node.run(&format!("nft flush chain inet hoody out_{}", container.policy.id));
    assert!(!world.is_applied(&container));
    assert_eq!(try_everything(&container), [Dropped; 3], "with an empty chain of its egress, and nobody who listens");
    assert_eq!(seen(&world), 0);
}

#[test]
fn a_change_ends_what_was_begun_in_another_way() {
    let mut world = world();
    let mut container = world.container(UserId::generate());
    let web = listen(&world.outside, 80);
    let (mut direct, mut web_side) = pair(&container.namespace, OUTSIDE, &web);
    assert!(flows(&mut direct, &mut web_side, ARRIVAL));
    let before = seen(&world);
    let egress = through_proxy(&container);
    set(&world, &mut container, egress);
    let (tcp, _udp) = taken(&world, &container);
    assert!(!flows(&mut direct, &mut web_side, SILENCE), "a direct connection");
    let (mut client, mut server) = proxied(&container, &tcp);
    assert_eq!(seen(&world), before, "after the change");
    // An agent that comes back leaves what goes through the proxy alone.
    world.restart();
    world.wait(world.firewall.prepare()).unwrap();
    world.apply(&container);
    assert!(flows(&mut client, &mut server, ARRIVAL), "after a restart of the agent");
    set(&world, &mut container, Egress::Direct);
    assert!(!flows(&mut client, &mut server, SILENCE), "a proxied connection, now direct");
    let (mut direct, mut web_side) = pair(&container.namespace, OUTSIDE, &web);
    set(&world, &mut container, Egress::Block);
    let begun = Instant::now();
    let before = seen(&world);
    assert!(!flows(&mut direct, &mut web_side, SILENCE), "blocked");
    assert_eq!(try_everything(&container), [Dropped; 3], "blocked");
    assert_eq!(seen(&world), before, "blocked for {:?}", begun.elapsed());
    let inside = listen(&container.namespace, 8080);
    let (mut visitor, mut visited) = pair(&world.outside, container.address(), &inside);
    assert!(flows(&mut visited, &mut visitor, ARRIVAL), "replies of a blocked container");
    world.wait(world.firewall.remove(container.policy.id)).unwrap();
    assert!(!world.listing().contains(&container.policy.id.to_string()), "{}", world.listing());
}
