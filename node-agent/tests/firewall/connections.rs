//! Connections that stand while policies change.

use super::{probe::*, world::*};
use hoody_agent::firewall::Firewall;
use hoody_protocol::{
    firewall::{Action, Match},
    id::UserId,
};
use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
};

#[test]
fn what_stays_allowed_goes_on_and_what_is_not_is_cut() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let (inside, outside) = (listen(&container.namespace, 80), listen(&world.outside, 80));
    let mut inbound = pair(&world.outside, container.address(), &inside);
    let mut outbound = pair(&container.namespace, OUTSIDE, &outside);
    let mut from_host = pair(&world.node, container.address(), &inside);
    // Lists that still allow all three; replies of each go against the other direction's list.
    world.set(&mut container, vec![rule(Action::Allow, tcp(80))], vec![rule(Action::Allow, tcp(80))]);
    for (client, server) in [&mut inbound, &mut outbound, &mut from_host] {
        assert!(flows(server, client, ARRIVAL));
        assert!(flows(client, server, ARRIVAL));
    }
    // The inbound ones are no longer allowed.
    world.set(&mut container, vec![rule(Action::Allow, tcp(81))], vec![rule(Action::Allow, tcp(80))]);
    for (client, server) in [&mut inbound, &mut from_host] {
        assert!(!flows(server, client, SILENCE));
        assert!(!flows(client, server, SILENCE));
    }
    let (client, server) = &mut outbound;
    assert!(flows(client, server, ARRIVAL));
    assert!(flows(server, client, ARRIVAL));
}

#[test]
fn a_cut_connection_does_not_come_back_from_its_other_side() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let inside = listen(&container.namespace, 80);
    let (mut client, mut server) = pair(&world.outside, container.address(), &inside);
    // Egress is open: the container's next segment must not begin the connection anew.
    world.set(&mut container, vec![rule(Action::Drop, tcp(80))], vec![]);
    assert!(!flows(&mut server, &mut client, SILENCE));
    assert!(!flows(&mut client, &mut server, SILENCE));
    world.set(&mut container, vec![rule(Action::Drop, tcp(80)), rule(Action::Drop, tcp(81))], vec![]);
    assert!(!flows(&mut server, &mut client, SILENCE));
}

#[test]
fn answers_to_a_question_that_is_no_longer_allowed_are_cut() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    world.set(&mut container, vec![rule(Action::Allow, tcp(80))], vec![]);
    let server = udp_socket(&world.outside, 53);
    let client = udp_socket(&container.namespace, 0);
    client.connect((OUTSIDE, 53)).unwrap();
    client.send(b"question").unwrap();
    let (_, peer) = server.recv_from(&mut [0; 64]).unwrap();
    server.send_to(b"answer", peer).unwrap();
    assert!(receives(&client));
    world.set(&mut container, vec![rule(Action::Allow, tcp(80))], vec![rule(Action::Drop, udp(53))]);
    server.send_to(b"answer", peer).unwrap();
    assert!(!receives(&client));
}

#[test]
fn a_restarted_agent_keeps_connections_and_policy() {
    let mut world = World::new();
    let mut container = world.container(UserId::generate());
    let inside = listen(&container.namespace, 80);
    let outside = listen(&world.outside, 80);
    world.set(&mut container, vec![rule(Action::Allow, tcp(80))], vec![]);
    let mut inbound = pair(&world.outside, container.address(), &inside);
    let mut outbound = pair(&container.namespace, OUTSIDE, &outside);
    world.restart();
    assert!(!world.is_applied(&container));
    world.wait(world.firewall.prepare()).unwrap();
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Dropped);
    assert!(flows(&mut inbound.0, &mut inbound.1, ARRIVAL));
    world.apply(&container);
    assert!(world.is_applied(&container));
    for (client, server) in [&mut inbound, &mut outbound] {
        assert!(flows(server, client, ARRIVAL));
        assert!(flows(client, server, ARRIVAL));
    }
}

#[test]
fn errors_reach_the_side_that_answers_too() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let inside = listen(&container.namespace, 80);
    // Neither list names ICMP.
    world.set(&mut container, vec![rule(Action::Allow, tcp(80))], vec![rule(Action::Allow, tcp(80))]);
    let (client, _server) = pair(&world.outside, container.address(), &inside);
    let port = client.local_addr().unwrap().port();
    let of = (&container.namespace, container.address());
    assert!(error_arrives(&world.outside, OUTSIDE, port, of), "a path's MTU is learnt from routers between");
    assert!(!error_arrives(&world.outside, OUTSIDE, port ^ 1, of), "about no connection");
}

#[test]
fn an_address_is_handed_on_without_its_connections() {
    let world = World::new();
    let first = world.container(UserId::generate());
    let listener = listen(&first.namespace, 80);
    let _pair = pair(&world.outside, first.address(), &listener);
    let known = || world.node.run("cat /proc/net/nf_conntrack");
    assert!(known().contains(&first.address().to_string()), "{}", known());
    world.wait(world.firewall.remove(first.policy.id)).unwrap();
    assert!(!known().contains(&first.address().to_string()), "{}", known());
}

#[test]
fn no_packet_passes_while_rules_that_drop_it_replace_each_other() {
    const SWAPS: usize = 300;
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let receiver = udp_socket(&container.namespace, 9);
    let control = udp_socket(&container.namespace, 10);
    let one_by_one = rule(Action::Drop, udp(9));
    let listed = rule(Action::Drop, Match::Udp(ports(&[], &[(5, 5), (9, 9), (11, 12)])));
    let allow = rule(Action::Allow, udp(10));
    world.set(&mut container, vec![one_by_one.clone()], vec![]);
    let stop = AtomicBool::new(false);
    let flood = |socket: UdpSocket| {
        let mut sent = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            sent += u64::from(socket.send_to(b"x", (container.policy.address, 9)).is_ok());
            let _ = socket.send_to(b"x", (container.policy.address, 10));
        }
        sent
    };
    let sender = udp_socket(&world.outside, 0);
    let mut policy = container.policy.clone();
    let sent = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(sender));
        for swap in 0..SWAPS {
            let rules = match swap % 3 {
                0 => vec![listed.clone()],
                1 => vec![allow.clone()],
                _ => vec![one_by_one.clone(), listed.clone()],
            };
            policy.rules.ingress = rules.try_into().unwrap();
            world.wait(world.firewall.apply(&policy)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        flooding.join().unwrap()
    });
    assert!(sent > 1000, "{sent} datagrams were sent");
    assert!(!receives(&receiver));
    assert!(receives(&control));
}
