//! The kernel against a model: random policies, random packets, and what became of each of them.
//!
//! Every packet carries its number. What arrives at the other side has passed, what comes back to the
//! sender as an error was rejected, the rest was dropped. No wait decides that: the sending thread stays on
//! one processor, where the kernel keeps packets in order, and behind the packets goes a reply of a
//! connection that stands, which no policy holds back. When it has arrived all others have been decided.

use super::{
    packet::{Ear, Packet, Protocol, Wire},
    probe::{ARRIVAL, Dropped, Fate, Passed, Rejected},
    world::*,
};
use hoody_agent::firewall::NftConfig;
use hoody_protocol::{
    firewall::{Action, Direction, FirewallRule, Match, PortRange, Ports},
    id::UserId,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::HashMap, net::Ipv4Addr};

/// Policies in a short run; HOODY_MODEL_POLICIES says otherwise.
const POLICIES: usize = 300;
const PACKETS: u32 = 48;
const MOST_RULES: usize = 8;
/// The last parts of the addresses that policies and packets choose from: few, so that they meet.
const HOSTS: [u8; 6] = [0, 1, 2, 127, 128, 255];
const PORTS: [u16; 10] = [1, 2, 79, 80, 81, 255, 256, 443, 65_534, 65_535];
/// The types of ICMP that ask and so may begin a connection: echo, timestamp, address mask.
const ICMP_TYPES: [u8; 3] = [8, 13, 17];
const OUTSIDE_MAC: &str = "02:00:00:00:00:02";

/// What the rules say of the packet, in the words of `hoody_protocol::firewall`.
fn expected(rules: &[FirewallRule], packet: &Packet) -> Fate {
    let enabled: Vec<&FirewallRule> = rules.iter().filter(|rule| rule.enabled).collect();
    for rule in &enabled {
        let peer = rule.peer.is_none_or(|peer| peer.contains(&packet.far));
        let within = |ranges: &[PortRange], port| {
            ranges.is_empty() || ranges.iter().any(|range| range.first() <= port && port <= range.last())
        };
        let ports = |ports: &Ports| {
            within(&ports.source, packet.source_port) && within(&ports.destination, packet.destination_port)
        };
        let matches = match &rule.matches {
            Match::Tcp(both) => packet.protocol == Protocol::Tcp && ports(both),
            Match::Udp(both) => packet.protocol == Protocol::Udp && ports(both),
            Match::Icmp4 { icmp_type, icmp_code } => {
                packet.protocol == Protocol::Icmp
                    && icmp_type.is_none_or(|wanted| wanted == packet.icmp_type)
                    && icmp_code.is_none_or(|wanted| wanted == packet.icmp_code)
            }
        };
        if peer && matches {
            return match rule.action {
                Action::Allow => Passed,
                Action::Reject => Rejected,
                Action::Drop => Dropped,
            };
        }
    }
    if enabled.iter().any(|rule| rule.action == Action::Allow) { Dropped } else { Passed }
}

fn one_of<T: Copy>(random: &mut StdRng, values: &[T]) -> T {
    values[random.random_range(0..values.len())]
}

/// Other addresses for each direction: what looks like the answer to a connection that stands would pass.
fn far(random: &mut StdRng, direction: Direction) -> Ipv4Addr {
    let host = one_of(random, &HOSTS);
    match direction {
        Direction::Ingress => Ipv4Addr::new(203, 0, 112, host),
        Direction::Egress => Ipv4Addr::new(203, 0, 113, host),
    }
}

fn ranges(random: &mut StdRng) -> Vec<(u16, u16)> {
    let count = one_of(random, &[0, 0, 1, 1, 2, 5]);
    let mut range = || {
        let (a, b) = (one_of(random, &PORTS), one_of(random, &PORTS));
        if random.random() { (a, a) } else { (a.min(b), a.max(b)) }
    };
    (0..count).map(|_| range()).collect()
}

fn a_rule(random: &mut StdRng, direction: Direction) -> FirewallRule {
    let matches = match random.random_range(0..5) {
        0 | 1 => Match::Tcp(ports(&ranges(random), &ranges(random))),
        2 | 3 => Match::Udp(ports(&ranges(random), &ranges(random))),
        _ => {
            let icmp_type = random.random_bool(0.7).then(|| one_of(random, &ICMP_TYPES));
            let icmp_code = icmp_type.filter(|_| random.random()).map(|_| random.random_range(0..2));
            icmp(icmp_type, icmp_code)
        }
    };
    let mut rule = rule(one_of(random, &[Action::Allow, Action::Reject, Action::Drop]), matches);
    rule.enabled = random.random_bool(0.85);
    if random.random() {
        let prefix = one_of(random, &[0_u8, 8, 24, 25, 31, 32]);
        rule = from(&format!("{}/{prefix}", far(random, direction)), rule);
    }
    rule
}

fn a_packet(random: &mut StdRng, direction: Direction) -> Packet {
    Packet {
        protocol: one_of(random, &[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Udp, Protocol::Icmp]),
        far: far(random, direction),
        source_port: one_of(random, &PORTS),
        destination_port: one_of(random, &PORTS),
        icmp_type: one_of(random, &ICMP_TYPES),
        icmp_code: random.random_range(0..2),
    }
}

/// Both ends: what they send, and what they hear.
#[derive(Debug)]
struct Ends {
    container: (Wire, Ear),
    outside: (Wire, Ear),
    address: Ipv4Addr,
}

impl Ends {
    fn new(world: &World, container: &Container) -> Self {
        for silent in [&container.namespace, &world.outside] {
            // Neither end answers by itself: only what the node does is seen.
            silent.run("nft add table ip silent");
            silent.run("nft add chain ip silent input { type filter hook input priority 0 ; policy drop ; }");
            silent.run("sysctl -q -w net.ipv4.ip_forward=0");
        }
        world.node.run("sysctl -q -w net.ipv4.icmp_ratemask=0");
        world.outside.run(&format!("ip link set eth0 address {OUTSIDE_MAC}"));
        world.node.run(&format!("ip neighbour replace {OUTSIDE} lladdr {OUTSIDE_MAC} dev up0 nud permanent"));
        world.node.run(&format!("ip route add 203.0.112.0/23 via {OUTSIDE}"));
        let end = |namespace: &Namespace| namespace.within(|| (Wire::open(), Ear::open()));
        Self { container: end(&container.namespace), outside: end(&world.outside), address: container.address() }
    }

    /// Sends the packets and gives the fate of each.
    fn send(&self, direction: Direction, packets: &[Packet], round: u32) -> Vec<Fate> {
        let outside = (&self.outside, OUTSIDE);
        let container = (&self.container, self.address);
        let ((from, from_address), (to, to_address)) = match direction {
            Direction::Ingress => (outside, container),
            Direction::Egress => (container, outside),
        };
        self.outside.1.clear();
        self.container.1.clear();
        // The connection along which the last packet goes is begun by the other side.
        to.0.send(&Packet::opening(), to_address, from_address, round);
        let opened = from.1.until(ARRIVAL, |heard| heard.opens(round)).pop().expect("the opening packet arrives");
        for (number, packet) in packets.iter().enumerate() {
            let (source, destination) = match direction {
                Direction::Ingress => (packet.far, self.address),
                Direction::Egress => (self.address, packet.far),
            };
            from.0.send(packet, source, destination, number as u32);
        }
        from.0.answer(&opened, round);
        let arrived = to.1.until(ARRIVAL, |heard| heard.closes(round));
        let mut fates = vec![Dropped; packets.len()];
        let mut seen: HashMap<usize, Fate> = HashMap::new();
        seen.extend(from.1.rest().iter().filter_map(|heard| heard.refused()).map(|number| (number as usize, Rejected)));
        seen.extend(arrived.iter().filter_map(|heard| heard.number()).map(|number| (number as usize, Passed)));
        for (number, fate) in seen {
            fates[number] = fate;
        }
        fates
    }
}

#[test]
fn the_kernel_decides_as_the_model_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("HOODY_MODEL_SEED").unwrap_or_else(rand::random);
    let policies = number("HOODY_MODEL_POLICIES").map_or(POLICIES, |policies| policies as usize);
    println!("HOODY_MODEL_SEED={seed} HOODY_MODEL_POLICIES={policies}");
    let mut random = StdRng::seed_from_u64(seed);

    let mut processors = nix::sched::CpuSet::new();
    processors.set(nix::sched::sched_getcpu().unwrap()).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &processors).unwrap();

    let world =
        World::with(NftConfig { connections_per_container: 1 << 20, ..NftConfig::new(NETWORK.parse().unwrap()) });
    let mut container = world.container(UserId::generate());
    let ends = Ends::new(&world, &container);
    let mut fates: HashMap<Fate, usize> = HashMap::new();
    for round in 0..policies as u32 {
        let direction = one_of(&mut random, &[Direction::Ingress, Direction::Egress]);
        let count = random.random_range(0..=MOST_RULES);
        let rules: Vec<FirewallRule> = (0..count).map(|_| a_rule(&mut random, direction)).collect();
        let packets: Vec<Packet> = (0..PACKETS).map(|_| a_packet(&mut random, direction)).collect();
        match direction {
            Direction::Ingress => world.set(&mut container, rules.clone(), vec![]),
            Direction::Egress => world.set(&mut container, vec![], rules.clone()),
        }
        let seen = ends.send(direction, &packets, round);
        for (packet, seen) in packets.iter().zip(seen) {
            let expected = expected(&rules, packet);
            assert_eq!(seen, expected, "seed {seed}, policy {round}, {direction:?}: {packet:?}, rules {rules:#?}");
            *fates.entry(seen).or_default() += 1;
        }
    }
    println!("{fates:?}");
    // Every fate was put to the test.
    assert!([Passed, Rejected, Dropped].iter().all(|fate| fates.get(fate).is_some_and(|count| *count > policies)));
}
