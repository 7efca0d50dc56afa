//! A table that belongs to the agent alone, and the kernel's news about one that does not.

use super::{probe::*, world::*};
use hoody_agent::firewall::{Firewall, NftConfig, NftFirewall};
use hoody_protocol::{firewall::Action, id::UserId};
use std::{process::Command, time::Duration};

/// The time in which what the kernel tells is here, the machine being busy.
const TOLD: Duration = Duration::from_secs(10);

fn owned() -> World {
    World::with(NftConfig::new(NETWORK.parse().unwrap()))
}

/// The table without what packets change in it.
fn standing(world: &World) -> Vec<String> {
    let counts = |line: &&str| line.contains("packets ") || (line.contains("ct count") && !line.contains("add @"));
    world.listing().lines().filter(|line| !counts(line)).map(str::to_owned).collect()
}

fn refused(world: &World, line: &str) {
    let words = ["netns", "exec", &world.node.0].into_iter().chain(line.split_whitespace());
    let output = Command::new("ip").args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("Operation not permitted"), "{line}: {error}");
}

#[test]
fn strangers_cannot_change_a_table_of_ours() {
    let mut world = owned();
    let mut container = world.container(UserId::generate());
    let _listeners = [80, 81].map(|port| listen(&container.namespace, port));
    world.set(&mut container, vec![rule(Action::Drop, tcp(81))], vec![]);
    let listing = standing(&world);
    let id = container.policy.id;
    for agent in ["the first", "the one after it"] {
        world.node.run("nft flush ruleset");
        for damage in [
            "nft delete table inet hoody".to_owned(),
            format!("nft flush chain inet hoody in_{id}"),
            format!("nft insert rule inet hoody in_{id} accept"),
            format!("nft delete element inet hoody ingress {{ {} }}", container.policy.interface),
        ] {
            refused(&world, &damage);
        }
        assert_eq!(standing(&world), listing, "{agent}");
        assert_eq!(tcp_fate(&world.outside, container.address(), 80), Passed, "{agent}");
        assert_eq!(tcp_fate(&world.outside, container.address(), 81), Dropped, "{agent}");
        // Its table stays when an agent ends, and belongs to the next.
        world.replace();
        assert_eq!(tcp_fate(&world.outside, container.address(), 81), Dropped, "between {agent} and the next");
        world.wait(world.firewall.prepare()).unwrap();
        world.apply(&container);
    }
}

#[test]
fn a_table_flushed_while_no_agent_runs_is_made_anew() {
    let mut world = owned();
    let container = world.container(UserId::generate());
    world.replace();
    world.node.run("nft flush ruleset");
    world.wait(world.firewall.prepare()).unwrap();
    world.apply(&container);
    assert!(world.is_applied(&container));
    refused(&world, "nft delete table inet hoody");
}

#[test]
fn a_table_that_everybody_may_change_is_left_so() {
    let mut world = World::new();
    let container = world.container(UserId::generate());
    let listing = world.listing();
    world.config.own_table = true;
    world.replace();
    world.wait(world.firewall.prepare()).unwrap();
    assert_eq!(world.listing(), listing, "the containers of a running server keep their chains");
    world.apply(&container);
    world.node.run(&format!("nft flush chain inet hoody in_{}", container.policy.id));
}

#[test]
fn a_table_put_to_sleep_is_woken() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let _listener = listen(&container.namespace, 81);
    world.set(&mut container, vec![rule(Action::Drop, tcp(81))], vec![]);
    assert!(world.wait(world.firewall.is_prepared()).unwrap());
    world.node.run("nft add table inet hoody { flags dormant ; }");
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Passed, "it sleeps");
    assert!(!world.wait(world.firewall.is_prepared()).unwrap());
    world.wait(world.firewall.prepare()).unwrap();
    assert!(world.wait(world.firewall.is_prepared()).unwrap());
    assert_eq!(tcp_fate(&world.outside, container.address(), 81), Dropped);
}

#[test]
fn the_kernel_tells_of_what_others_change_and_of_nothing_else() {
    let world = World::new();
    let mut container = world.container(UserId::generate());
    let id = container.policy.id;
    let told = |world: &World, limit| {
        world.wait(async { tokio::time::timeout(limit, world.firewall.changed()).await.is_ok() })
    };
    world.set(&mut container, vec![rule(Action::Drop, tcp(81))], vec![]);
    world.wait(world.firewall.prepare()).unwrap();
    world.node.run("nft add table inet other");
    world.node.run("nft add chain inet other c { type filter hook input priority 0 ; }");
    assert!(!told(&world, Duration::ZERO), "our own changes, and those of another table");
    for damage in [
        format!("nft insert rule inet hoody in_{id} accept"),
        format!("nft delete element inet hoody ingress {{ {} }}", container.policy.interface),
        "nft add table inet hoody { flags dormant ; }".to_owned(),
        "nft flush ruleset".to_owned(),
    ] {
        world.node.run(&damage);
        assert!(told(&world, TOLD), "{damage}");
        world.wait(world.firewall.prepare()).unwrap();
        world.apply(&container);
        assert!(!told(&world, Duration::ZERO), "the repair of {damage}");
    }
}

#[test]
fn news_that_did_not_fit_are_a_change() {
    let world = World::new();
    // Of another table, so that only the overflow can be what is told.
    let elements: Vec<_> =
        (0..4000).map(|number| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255)).collect();
    world.node.run("nft add table inet other");
    world.node.run("nft add set inet other s { type ipv4_addr ; }");
    for _ in 0..20 {
        world.node.run(&format!("nft add element inet other s {{ {} }}", elements.join(",")));
        world.node.run("nft flush set inet other s");
    }
    assert!(world.wait(async { tokio::time::timeout(TOLD, world.firewall.changed()).await.is_ok() }));
}

#[test]
fn a_table_whose_owner_is_just_ending_is_taken_over() {
    let mut world = owned();
    let container = world.container(UserId::generate());
    let next = world.node.within(|| NftFirewall::open(world.config.clone()).unwrap());
    let ending = std::mem::replace(&mut world.firewall, next);
    std::thread::scope(|scope| {
        // A killed process closes its sockets one after the other, long after its lock is free: this long here.
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(ending);
        });
        world.wait(world.firewall.prepare()).unwrap();
    });
    world.apply(&container);
    refused(&world, "nft delete table inet hoody");
}
