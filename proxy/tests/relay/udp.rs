//! UDP other than DNS.

use crate::{
    namespace::wait_for,
    world::{DESTINATION, World, policy},
};
use hoody_proxy::control::UpstreamKind;
use std::{net::SocketAddr, time::Duration};

#[test]
fn packets_go_through_an_upstream_that_relays_them() {
    let mut world = World::new();
    let _upstream = world.dante(1080);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let ports = [world.udp_echo(), world.udp_echo()];
    let sockets = [world.udp(), world.udp()];
    let mut buffer = [0; 2048];
    for socket in &sockets {
        for port in ports {
            for length in [1, 1000, 1400] {
                let packet = vec![length as u8; length];
                socket.send_to(&packet, (DESTINATION, port)).unwrap();
                let (read, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(from, SocketAddr::from((DESTINATION, port)), "the answer's source is who was sent to");
                assert_eq!(buffer[..read], packet);
            }
        }
    }
    let counters = world.status().counters;
    assert_eq!((counters.packets, counters.packets_dropped), (24, 0));
}

#[test]
fn answers_from_where_nothing_was_sent_to_are_dropped() {
    let mut world = World::new();
    let _upstream = world.dante(1080);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let port = world.udp_echo();
    let socket = world.udp();
    let mut buffer = [0; 2048];
    socket.send_to(b"from another port, too", (DESTINATION, port)).unwrap();
    let read = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..read], b"from another port, too");
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(socket.recv(&mut buffer).is_err(), "the other answer");
}

#[test]
fn without_a_relay_packets_are_dropped_and_connections_go_on() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    let port = world.udp_echo();
    for kind in [UpstreamKind::Socks5, UpstreamKind::Http] {
        world.set(policy(kind, 1080));
        let dropped = world.status().counters.packets_dropped;
        world.udp().send_to(b"nowhere", (DESTINATION, port)).unwrap();
        wait_for("the packet to be dropped", || (world.status().counters.packets_dropped > dropped).then_some(()));
        assert_eq!(world.status().counters.packets, 0);
        world.block_on(world.client().remove(world.id)).unwrap();
    }
}
