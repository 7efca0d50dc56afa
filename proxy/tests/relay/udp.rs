//! UDP other than DNS.

use crate::{
    namespace::{Namespace, wait_for},
    world::{DESTINATION, SERVER, UPSTREAM, World, policy},
};
use hoody_proxy::control::UpstreamKind;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
};

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

/// An upstream whose relay says of a packet that it comes from the server's own address, and then answers it.
fn lying_relay(name: &'static str, mut stream: TcpStream) {
    Namespace::enter(name);
    let relay = UdpSocket::bind((UPSTREAM, 0)).unwrap();
    let [high, low] = relay.local_addr().unwrap().port().to_be_bytes();
    let mut greeting = [0; 3];
    let mut command = [0; 10];
    if stream.read_exact(&mut greeting).is_err() || stream.write_all(&[5, 0]).is_err() {
        return;
    }
    // A try of the upstream asks for nothing.
    if stream.read_exact(&mut command).is_err() {
        return;
    }
    let [a, b, c, d] = UPSTREAM.octets();
    stream.write_all(&[5, 0, 0, 1, a, b, c, d, high, low]).unwrap();
    let mut packet = [0; 2048];
    let (length, from) = relay.recv_from(&mut packet).unwrap();
    relay.send_to(b"\0\0\0\x01\x0a\x58\0\x01\0\x50a lie", from).unwrap();
    relay.send_to(&packet[..length], from).unwrap();
    let _ = stream.read(&mut packet);
}

#[test]
fn answers_from_where_nothing_was_sent_to_are_dropped() {
    let mut world = World::new();
    let name: &'static str = Box::leak(world.outside.0.clone().into_boxed_str());
    let (port, _) = world.serve_at(UPSTREAM, move |stream| lying_relay(name, stream));
    world.set_up(policy(UpstreamKind::Socks5, port));
    let socket = world.udp();
    let mut buffer = [0; 2048];
    socket.send_to(b"a question", (DESTINATION, 7)).unwrap();
    let (read, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..read], from), (&b"a question"[..], SocketAddr::from((DESTINATION, 7))));
    let counters = world.status().counters;
    assert_eq!((counters.packets, counters.packets_dropped), (2, 1));
}

#[test]
fn a_relay_inside_the_platform_that_the_upstream_names_gets_no_packet() {
    let mut world = World::new();
    let inside = world.server.within(|| UdpSocket::bind((SERVER, 0)).unwrap());
    inside.set_nonblocking(true).unwrap();
    let [high, low] = inside.local_addr().unwrap().port().to_be_bytes();
    let (port, _) = world.serve_at(UPSTREAM, move |mut stream| {
        let (mut greeting, mut command) = ([0; 3], [0; 10]);
        if stream.read_exact(&mut greeting).is_err() || stream.write_all(&[5, 0]).is_err() {
            return;
        }
        // A try of the upstream asks for nothing.
        if stream.read_exact(&mut command).is_ok() {
            let [a, b, c, d] = SERVER.octets();
            let _ = stream.write_all(&[5, 0, 0, 1, a, b, c, d, high, low]);
            let _ = stream.read(&mut command);
        }
    });
    world.set_up(policy(UpstreamKind::Socks5, port));
    world.udp().send_to(b"a question", (DESTINATION, 7)).unwrap();
    let counters = wait_for("what became of the packet", || {
        Some(world.status().counters).filter(|counters| counters.packets + counters.packets_dropped > 0)
    });
    assert_eq!((counters.packets, counters.packets_dropped), (0, 1));
    assert_eq!(inside.recv(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it went there");
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
