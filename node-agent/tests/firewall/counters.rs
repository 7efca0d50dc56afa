//! What rules count, over replacements, toggles and restarts.

use super::{probe::*, world::*};
use hoody_agent::firewall::Firewall;
use hoody_protocol::{firewall::Action, id::UserId};
use std::net::UdpSocket;

/// Bytes of an IPv4 datagram with one byte of UDP payload.
const DATAGRAM_BYTES: u64 = 20 + 8 + 1;

fn send(socket: &UdpSocket, container: &Container, datagrams: usize) {
    for _ in 0..datagrams {
        socket.send_to(b"x", (container.address(), 9)).unwrap();
    }
}

#[test]
fn counters_go_on_over_replacements_toggles_and_restarts() {
    let mut world = World::new();
    let mut container = world.container(UserId::generate());
    let receiver = udp_socket(&container.namespace, 9);
    let sender = udp_socket(&world.outside, 0);
    let (counted, other) = (rule(Action::Allow, udp(9)), rule(Action::Drop, tcp(1)));
    let settle = |container: &Container, packets: u64| {
        // The path is asynchronous only at the receiver: what it has got was counted.
        for _ in 0..packets {
            assert!(receives(&receiver), "at {:?}", container.policy.interface);
        }
    };
    world.set(&mut container, vec![counted.clone()], vec![]);
    send(&sender, &container, 3);
    settle(&container, 3);
    assert_eq!(world.count(&container, counted.id), Some((3, 3 * DATAGRAM_BYTES)));
    world.set(&mut container, vec![other.clone(), counted.clone()], vec![]);
    send(&sender, &container, 2);
    settle(&container, 2);
    assert_eq!(world.count(&container, counted.id), Some((5, 5 * DATAGRAM_BYTES)));
    assert_eq!(world.count(&container, other.id), Some((0, 0)));
    // Switched off it counts nothing and forgets nothing.
    world.set(&mut container, vec![disabled(&counted)], vec![]);
    send(&sender, &container, 2);
    settle(&container, 2);
    assert_eq!(world.count(&container, counted.id), Some((5, 5 * DATAGRAM_BYTES)));
    assert_eq!(world.count(&container, other.id), None);
    world.restart();
    assert_eq!(world.count(&container, counted.id), Some((5, 5 * DATAGRAM_BYTES)));
    world.wait(world.firewall.prepare()).unwrap();
    world.set(&mut container, vec![counted.clone()], vec![]);
    send(&sender, &container, 1);
    settle(&container, 1);
    assert_eq!(world.count(&container, counted.id), Some((6, 6 * DATAGRAM_BYTES)));
    // Gone from the policy, gone for good.
    world.set(&mut container, vec![], vec![]);
    assert_eq!(world.count(&container, counted.id), None);
    world.set(&mut container, vec![counted.clone()], vec![]);
    assert_eq!(world.count(&container, counted.id), Some((0, 0)));
}

#[test]
fn nothing_is_lost_between_two_chains() {
    const SWAPS: usize = 100;
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let counted = rule(Action::Drop, udp(9));
    world.set(&mut container, vec![counted.clone()], vec![]);
    let sender = udp_socket(&world.node, 0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let policy = container.policy.clone();
    let sent = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // The host's own datagram is dropped on its way out: refused, and counted.
                assert!(sender.send_to(b"x", (policy.address, 9)).is_err());
                sent += 1;
            }
            sent
        });
        for _ in 0..SWAPS {
            world.apply(&container);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        flooding.join().unwrap()
    });
    assert_eq!(world.count(&container, counted.id), Some((sent, sent * DATAGRAM_BYTES)));
}
