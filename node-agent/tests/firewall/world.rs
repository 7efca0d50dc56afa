//! A node, its containers and the outside, each a network namespace of its own, gone when dropped.

use hoody_agent::firewall::{Egress, Firewall, NftConfig, NftFirewall, Policy};
use hoody_protocol::{
    firewall::{Action, FirewallRule, FirewallSpec, Match, PortRange, Ports},
    id::{ContainerId, RuleId, UserId},
};
use std::{
    fs::File,
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

pub(crate) const NETWORK: &str = "10.64.0.0/16";
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new(what: &str) -> Self {
        let name = format!("hyt-{}-{}-{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&["ip", "netns", "add", &name]);
        let namespace = Self(name);
        namespace.run("ip link set lo up");
        namespace
    }

    /// Runs a command line within.
    pub(crate) fn run(&self, line: &str) -> String {
        let mut words = vec!["ip", "netns", "exec", &self.0];
        words.extend(line.split_whitespace());
        run(&words)
    }

    /// Runs a closure on a thread of its own that has entered the namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A container's side: its namespace and what the firewall is told of it.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) namespace: Namespace,
    pub(crate) policy: Policy,
}

impl Container {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.policy.address
    }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) node: Namespace,
    pub(crate) outside: Namespace,
    pub(crate) firewall: NftFirewall,
    pub(crate) config: NftConfig,
    runtime: tokio::runtime::Runtime,
    containers: AtomicU32,
}

impl World {
    /// A node with a prepared firewall that strangers can change, and the outside.
    pub(crate) fn new() -> Self {
        Self::with(NftConfig { own_table: false, ..NftConfig::new(NETWORK.parse().unwrap()) })
    }

    pub(crate) fn with(config: NftConfig) -> Self {
        let (node, outside) = (Namespace::new("node"), Namespace::new("out"));
        node.run(&format!("ip link add up0 type veth peer name eth0 netns {}", outside.0));
        node.run(&format!("ip address add {NODE}/24 dev up0"));
        node.run("ip link set up0 up");
        outside.run(&format!("ip address add {OUTSIDE}/24 dev eth0"));
        outside.run("ip link set eth0 up");
        outside.run(&format!("ip route add {NETWORK} via {NODE}"));
        node.run("sysctl -q -w net.ipv4.ip_forward=1");
        let firewall = node.within(|| NftFirewall::open(config.clone()).unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().enable_io().build().unwrap();
        let world = Self { node, outside, firewall, config, runtime, containers: AtomicU32::new(0) };
        world.wait(world.firewall.prepare()).unwrap();
        world
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A container of the owner, linked, with an empty policy in force since before its link was made.
    pub(crate) fn container(&self, owner: UserId) -> Container {
        let number = self.containers.fetch_add(1, Ordering::Relaxed) + 2;
        let id = ContainerId::generate();
        let address = Ipv4Addr::new(10, 64, 0, number as u8);
        let interface = hoody_agent::network::host_interface(id);
        let policy = Policy { id, owner, interface, address, rules: FirewallSpec::default(), egress: Egress::Direct };
        let container = Container { namespace: Namespace::new("c"), policy };
        self.apply(&container);
        self.link(&container);
        container
    }

    pub(crate) fn link(&self, container: &Container) {
        let (interface, address) = (&container.policy.interface, container.address());
        let inside = &container.namespace;
        self.node.run(&format!("ip link add {interface} type veth peer name eth0 netns {}", inside.0));
        self.node.run(&format!("ip address add {GATEWAY}/32 dev {interface}"));
        self.node.run(&format!("ip link set {interface} up"));
        self.node.run(&format!("ip route add {address}/32 dev {interface}"));
        inside.run(&format!("ip address add {address}/32 dev eth0"));
        inside.run("ip link set eth0 up");
        inside.run(&format!("ip route add default via {GATEWAY} dev eth0 onlink"));
    }

    pub(crate) fn apply(&self, container: &Container) {
        self.wait(self.firewall.apply(&container.policy)).unwrap();
    }

    /// Puts other rules in force.
    pub(crate) fn set(&self, container: &mut Container, ingress: Vec<FirewallRule>, egress: Vec<FirewallRule>) {
        container.policy.rules =
            FirewallSpec { ingress: ingress.try_into().unwrap(), egress: egress.try_into().unwrap() };
        self.apply(container);
    }

    /// The agent as after a restart: nothing remembered.
    pub(crate) fn restart(&mut self) {
        self.firewall = self.node.within(|| NftFirewall::open(self.config.clone()).unwrap());
    }

    /// Another agent once the one before it has ended.
    pub(crate) fn replace(&mut self) {
        // Its sockets are closed with its last handle; one of a namespace that nobody looks at takes its place.
        let elsewhere = Namespace::new("gone");
        self.firewall = elsewhere.within(|| NftFirewall::open(self.config.clone()).unwrap());
        self.restart();
    }

    pub(crate) fn is_applied(&self, container: &Container) -> bool {
        self.wait(self.firewall.is_applied(container.policy.id)).unwrap()
    }

    /// Packets and bytes of a rule.
    pub(crate) fn count(&self, container: &Container, rule: RuleId) -> Option<(u64, u64)> {
        let counters = self.wait(self.firewall.counters(container.policy.id)).unwrap();
        counters.iter().find(|counter| counter.rule == rule).map(|counter| (counter.packets, counter.bytes))
    }

    /// The table as the `nft` program shows it.
    pub(crate) fn listing(&self) -> String {
        self.node.run(&format!("nft list table inet {}", self.config.table))
    }
}

pub(crate) fn rule(action: Action, matches: Match) -> FirewallRule {
    FirewallRule {
        id: RuleId::generate(),
        enabled: true,
        action,
        matches,
        peer: None,
        host: None,
        description: String::new().try_into().unwrap(),
    }
}

pub(crate) fn from(peer: &str, rule: FirewallRule) -> FirewallRule {
    FirewallRule { peer: Some(peer.parse().unwrap()), ..rule }
}

pub(crate) fn disabled(rule: &FirewallRule) -> FirewallRule {
    FirewallRule { enabled: false, ..rule.clone() }
}

pub(crate) fn ports(source: &[(u16, u16)], destination: &[(u16, u16)]) -> Ports {
    let list = |ranges: &[(u16, u16)]| {
        let ranges: Vec<_> = ranges.iter().map(|(first, last)| PortRange::new(*first, *last).unwrap()).collect();
        ranges.try_into().unwrap()
    };
    Ports { source: list(source), destination: list(destination) }
}

pub(crate) fn tcp(destination: u16) -> Match {
    Match::Tcp(ports(&[], &[(destination, destination)]))
}

pub(crate) fn udp(destination: u16) -> Match {
    Match::Udp(ports(&[], &[(destination, destination)]))
}

pub(crate) fn any_tcp() -> Match {
    Match::Tcp(Ports::default())
}

pub(crate) fn any_udp() -> Match {
    Match::Udp(Ports::default())
}

pub(crate) fn icmp(icmp_type: Option<u8>, icmp_code: Option<u8>) -> Match {
    Match::Icmp4 { icmp_type, icmp_code }
}
