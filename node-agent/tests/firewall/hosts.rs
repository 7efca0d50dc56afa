//! Rules that name hosts: what answers do to them, and what holds before and without answers.

use super::{probe::*, world::*};
use hoody_agent::firewall::{Answer, Firewall};
use hoody_protocol::{
    bounded::Text,
    firewall::{Action, FirewallRule, Match},
    id::UserId,
};
use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

const HOST: &str = "api.example.com";
/// Another address of the outside.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn world() -> World {
    let world = World::new();
    world.outside.run(&format!("ip address add {OTHER}/24 dev eth0"));
    world
}

fn to(host: &str, action: Action, matches: Match) -> FirewallRule {
    FirewallRule { host: Some(Text::truncated(host)), ..rule(action, matches) }
}

fn tell(world: &World, container: &Container, addresses: &[Ipv4Addr], holds: Duration) {
    let addresses: std::collections::BTreeSet<_> = addresses.iter().copied().collect();
    let answer = Answer { permitted: addresses.clone(), addresses, holds };
    world.wait(world.firewall.resolved(container.policy.id, HOST, answer)).unwrap();
}

/// What becomes of connections to the outside's two addresses.
fn fates(container: &Container) -> [Fate; 2] {
    [OUTSIDE, OTHER].map(|address| tcp_fate(&container.namespace, address, 80))
}

/// A connection to the outside; those that only tried before are let go.
fn connected(container: &Container, web: &TcpListener) -> (TcpStream, TcpStream) {
    web.set_nonblocking(true).unwrap();
    while web.accept().is_ok() {}
    web.set_nonblocking(false).unwrap();
    pair(&container.namespace, OUTSIDE, web)
}

#[track_caller]
fn wait_fates(container: &Container, web: &TcpListener, wanted: [Fate; 2]) {
    let end = Instant::now() + Duration::from_secs(30);
    web.set_nonblocking(true).unwrap();
    while fates(container) != wanted {
        // Room for the next ones.
        while web.accept().is_ok() {}
        assert!(Instant::now() < end, "{wanted:?} does not come: {:?}", fates(container));
    }
}

#[test]
fn an_allowed_name_is_where_it_is_said_to_be_for_as_long_as_it_is_said() {
    let world = world();
    let web = listen(&world.outside, 80);
    let mut container = world.container(UserId::generate());
    let allow = to(HOST, Action::Allow, any_tcp());
    world.set(&mut container, vec![], vec![allow.clone()]);
    assert_eq!(fates(&container), [Dropped; 2], "nobody knows where it is");
    tell(&world, &container, &[OUTSIDE], Duration::from_secs(2));
    assert_eq!(fates(&container), [Passed, Dropped]);
    assert!(world.count(&container, allow.id).unwrap().0 > 0);
    tell(&world, &container, &[OTHER], LONG);
    assert_eq!(tcp_fate(&container.namespace, OTHER, 80), Passed, "a later answer counts at once");
    wait_fates(&container, &web, [Dropped, Passed]);
    // The kernel's clock, and not the agent's: nobody says anything any more.
    tell(&world, &container, &[OUTSIDE], Duration::from_secs(2));
    assert_eq!(fates(&container), [Passed; 2]);
    wait_fates(&container, &web, [Dropped, Passed]);
    assert!(world.is_applied(&container), "answers are no drift");
}

#[test]
fn connections_go_on_where_a_name_moves_on_and_new_ones_are_not_begun() {
    let mut world = world();
    let web = listen(&world.outside, 80);
    let mut container = world.container(UserId::generate());
    let allow = to(HOST, Action::Allow, any_tcp());
    world.set(&mut container, vec![], vec![allow.clone()]);
    tell(&world, &container, &[OUTSIDE], Duration::from_secs(1));
    let (mut client, mut server) = connected(&container, &web);
    tell(&world, &container, &[OTHER], LONG);
    wait_fates(&container, &web, [Dropped, Passed]);
    assert!(flows(&mut client, &mut server, ARRIVAL), "it has moved on, what stands goes on");
    // As often as there are answers, and in another agent.
    tell(&world, &container, &[OTHER], LONG);
    assert!(flows(&mut client, &mut server, ARRIVAL));
    world.restart();
    world.wait(world.firewall.prepare()).unwrap();
    world.apply(&container);
    tell(&world, &container, &[OTHER], LONG);
    assert!(flows(&mut client, &mut server, ARRIVAL), "another agent");
    assert_eq!(fates(&container), [Dropped, Passed], "nothing new is begun");
    assert!(world.is_applied(&container), "none of it is drift");
    // Without its rule it is cut like any other.
    world.set(&mut container, vec![], vec![to("other.example.com", Action::Allow, any_tcp())]);
    assert!(!flows(&mut client, &mut server, SILENCE));

    // Where nobody says anything any more, what is kept is closed by the kernel's clock.
    world.set(&mut container, vec![], vec![allow]);
    tell(&world, &container, &[OUTSIDE], Duration::from_secs(1));
    let (mut client, mut server) = connected(&container, &web);
    tell(&world, &container, &[OTHER], Duration::from_secs(2));
    wait_fates(&container, &web, [Dropped; 2]);
    assert!(!flows(&mut client, &mut server, SILENCE));
}

#[test]
fn what_may_not_be_led_to_is_allowed_to_nobody_and_refused_all_the_same() {
    let world = world();
    let _web = listen(&world.outside, 80);
    let mut container = world.container(UserId::generate());
    let answer =
        || Answer { permitted: [OTHER].into(), addresses: [OUTSIDE, OTHER].into(), holds: Duration::from_secs(60) };
    world.set(&mut container, vec![], vec![to(HOST, Action::Allow, any_tcp())]);
    world.wait(world.firewall.resolved(container.policy.id, HOST, answer())).unwrap();
    assert_eq!(fates(&container), [Dropped, Passed]);
    world.set(&mut container, vec![], vec![to(HOST, Action::Drop, any_tcp())]);
    world.wait(world.firewall.resolved(container.policy.id, HOST, answer())).unwrap();
    assert_eq!(fates(&container), [Dropped; 2]);
}

#[test]
fn a_refused_name_is_everywhere_until_it_is_known_where() {
    let world = world();
    let _web = listen(&world.outside, 80);
    let mut container = world.container(UserId::generate());
    world.set(&mut container, vec![], vec![to(HOST, Action::Reject, any_tcp())]);
    assert_eq!(fates(&container), [Rejected; 2], "nobody knows where it is");
    tell(&world, &container, &[OUTSIDE], Duration::ZERO);
    assert_eq!(fates(&container), [Rejected, Passed], "it does not pass away by itself");
    tell(&world, &container, &[OTHER], LONG);
    assert_eq!(fates(&container), [Passed, Rejected]);
    tell(&world, &container, &[], LONG);
    assert_eq!(fates(&container), [Passed, Rejected], "what was said for long holds");
    // Nowhere is an answer too.
    world.set(&mut container, vec![], vec![]);
    world.set(&mut container, vec![], vec![to(HOST, Action::Reject, any_tcp())]);
    assert_eq!(fates(&container), [Rejected; 2]);
    tell(&world, &container, &[], LONG);
    assert_eq!(fates(&container), [Passed; 2]);
}

#[test]
fn answers_outlive_changes_of_other_rules_the_agent_and_a_table_that_was_deleted() {
    let mut world = world();
    let web = listen(&world.outside, 80);
    let mut container = world.container(UserId::generate());
    let allow = to(HOST, Action::Allow, any_tcp());
    world.set(&mut container, vec![], vec![allow.clone()]);
    tell(&world, &container, &[OUTSIDE], LONG);
    let (mut client, mut server) = connected(&container, &web);
    world.set(&mut container, vec![], vec![allow.clone(), rule(Action::Drop, udp(9))]);
    assert_eq!(fates(&container), [Passed, Dropped]);
    world.restart();
    world.wait(world.firewall.prepare()).unwrap();
    world.apply(&container);
    assert_eq!(fates(&container), [Passed, Dropped], "another agent");
    assert!(flows(&mut client, &mut server, ARRIVAL), "a connection to the name goes on");
    tell(&world, &container, &[OTHER], LONG);
    assert_eq!(fates(&container), [Passed; 2], "what it found is as good as an answer");
    // A stranger deletes everything.
    world.node.run("nft delete table inet hoody");
    world.wait(world.firewall.prepare()).unwrap();
    world.apply(&container);
    assert_eq!(fates(&container), [Passed; 2], "made anew with what was known");

    // The name in another rule, or in none, is another matter.
    let (mut client, mut server) = connected(&container, &web);
    world.set(&mut container, vec![], vec![to("other.example.com", Action::Allow, any_tcp())]);
    assert_eq!(fates(&container), [Dropped; 2]);
    assert!(!flows(&mut client, &mut server, SILENCE), "the connection is cut");
    assert_eq!(world.listing().matches("set host_").count(), 2, "{}", world.listing());
    tell(&world, &container, &[OUTSIDE], LONG);
    assert_eq!(fates(&container), [Dropped; 2], "an answer that comes late");
    world.wait(world.firewall.remove(container.policy.id)).unwrap();
    assert!(!world.listing().contains("host_"), "{}", world.listing());
}
