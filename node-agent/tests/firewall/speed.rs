//! How long a change takes; prints, and asserts nothing about time.

use super::world::*;
use hoody_agent::firewall::{Egress, Firewall, Policy};
use hoody_protocol::{
    firewall::{Action, FirewallSpec, Match},
    id::{ContainerId, UserId},
};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

const CONTAINERS: u16 = 200;
const RULES_PER_CONTAINER: u16 = 5;
const SAMPLES: usize = 200;

fn policy(number: u16, owner: UserId) -> Policy {
    let id = ContainerId::generate();
    let rules = (0..RULES_PER_CONTAINER).map(|port| match port % 3 {
        0 => rule(Action::Allow, Match::Tcp(ports(&[], &[(port + 1, port + 1), (100 + number, 400 + number)]))),
        1 => from("192.0.2.0/24", rule(Action::Reject, tcp(port + 1))),
        _ => rule(Action::Drop, udp(port + 1)),
    });
    let [high, low] = (number + 2).to_be_bytes();
    Policy {
        id,
        owner,
        interface: hoody_agent::network::host_interface(id),
        address: Ipv4Addr::new(10, 64, high, low),
        rules: FirewallSpec { ingress: rules.collect::<Vec<_>>().try_into().unwrap(), ..FirewallSpec::default() },
        egress: Egress::Direct,
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what}: p50 {:?}, p95 {:?}, max {:?}", at(0.5), at(0.95), at(1.0));
}

#[test]
#[ignore = "a benchmark: cargo test --release -p hoody-agent --test firewall speed -- --ignored --nocapture"]
fn speed_of_one_change_among_a_thousand_rules() {
    let mut world = World::new();
    let mut policies: Vec<_> = (0..CONTAINERS).map(|number| policy(number, UserId::generate())).collect();
    let timed = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let first = policies.iter().map(|policy| timed(&mut || world.wait(world.firewall.apply(policy)).unwrap()));
    report("first apply", first.collect());
    let mut change = Vec::new();
    for sample in 0..SAMPLES {
        let policy = &mut policies[sample % usize::from(CONTAINERS)];
        let mut rules = policy.rules.ingress.to_vec();
        rules.rotate_left(1);
        rules[0].enabled = !rules[0].enabled;
        policy.rules.ingress = rules.try_into().unwrap();
        change.push(timed(&mut || world.wait(world.firewall.apply(policy)).unwrap()));
    }
    report("apply of a changed policy", change);
    let each = |call: &dyn Fn(ContainerId)| policies.iter().map(|policy| timed(&mut || call(policy.id))).collect();
    report("is_applied", each(&|id| assert!(world.wait(world.firewall.is_applied(id)).unwrap())));
    report("counters", each(&|id| drop(world.wait(world.firewall.counters(id)).unwrap())));
    let program = (0..20).map(|sample| {
        let id = policies[sample].id;
        let line = format!("nft flush chain inet hoody in_{id} ; add rule inet hoody in_{id} tcp dport 80 drop");
        timed(&mut || drop(world.node.run(&line)))
    });
    report("nft program, one chain flushed and one rule added (with ip netns exec)", program.collect());
    report("(ip netns exec true)", (0..20).map(|_| timed(&mut || drop(world.node.run("true")))).collect());
    world.restart();
    report("prepare after a restart", vec![timed(&mut || world.wait(world.firewall.prepare()).unwrap())]);
    report(
        "remove",
        policies.iter().map(|policy| timed(&mut || world.wait(world.firewall.remove(policy.id)).unwrap())).collect(),
    );
}
