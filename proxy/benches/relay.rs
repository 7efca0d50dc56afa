//! What the proxy takes: the same path without any, with a client that speaks SOCKS5 itself, through this proxy, and
//! through redsocks, all with the same SOCKS5 server and in the same run. `make bench-proxy`; needs root, iperf3,
//! microsocks, proxychains4 and redsocks.

#![allow(clippy::unwrap_used, reason = "a panic is the message")]
#![allow(dead_code, reason = "what the tests need of the same modules")]

#[path = "../tests/relay/namespace.rs"]
mod namespace;
#[path = "../tests/relay/upstreams.rs"]
mod upstreams;
#[path = "../tests/relay/world.rs"]
mod world;

use hoody_proxy::control::UpstreamKind;
use namespace::{Namespace, wait_for};
use std::{
    io::{Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use world::{DESTINATION, UPSTREAM, World, policy};

const SECONDS: u64 = 5;
const CLIENTS: usize = 16;
const REDSOCKS: u16 = 12_345;
const IPERF: u16 = 5201;

fn main() {
    let mut world = World::logging("info");
    let _upstream = world.microsocks(1080, None);
    let port = short_lived(&world);
    let _iperf = world.start_iperf();
    println!("{:<34} {:>12} {:>12} {:>16}", "", "up Gbit/s", "down Gbit/s", "connections/s");

    world.route_directly();
    let direct = measure(&world, "without a proxy", port, Way::Plain);
    let itself = measure(&world, "the client speaks SOCKS5 itself", port, Way::Socks);
    world.route_to_the_proxy();
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let begun = world.proxy_seconds();
    let proxied = measure(&world, "hoody-proxy, microsocks", port, Way::Plain);
    let busy = world.proxy_seconds() - begun;
    let counters = world.status().counters;
    let _redsocks = world.start_redsocks();
    world.route_to_redsocks();
    let peer = measure(&world, "redsocks, microsocks", port, Way::Plain);

    let percent = |a: f64, b: f64| 100.0 * a / b;
    for (what, other) in [("the path without a proxy", &direct), ("the client that speaks SOCKS5 itself", &itself)] {
        println!(
            "of {what}: {:.0} % up, {:.0} % down, {:.0} % of its connections",
            percent(proxied.0, other.0),
            percent(proxied.1, other.1),
            percent(proxied.2, other.2)
        );
    }
    println!(
        "against redsocks: {:.1} x up, {:.1} x down, {:.1} x connections",
        proxied.0 / peer.0,
        proxied.1 / peer.1,
        proxied.2 / peer.2
    );
    println!(
        "processor time of the proxy: {busy:.1} s for {} connections and {:.1} GB",
        counters.connections,
        (counters.bytes_in + counters.bytes_out) as f64 / 1e9
    );
}

/// How a client gets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As if there was nothing in between.
    Plain,
    /// It knows the SOCKS5 server, and speaks to it.
    Socks,
}

/// Gbit/s up and down, and connections a second.
fn measure(world: &World, what: &str, port: u16, way: Way) -> (f64, f64, f64) {
    let (up, down, rate) = (world.iperf(way, &[]), world.iperf(way, &["-R"]), connections(world, port, way));
    println!("{what:<34} {up:>12.2} {down:>12.2} {rate:>16.0}");
    (up, down, rate)
}

/// A destination that answers one byte with one byte.
fn short_lived(world: &World) -> u16 {
    let listener = world.outside.within(|| TcpListener::bind((DESTINATION, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    for _ in 0..CLIENTS {
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() {
                    let _ = stream.write_all(&byte);
                }
            }
        });
    }
    port
}

/// Connections a second, each with a byte there and back.
fn connections(world: &World, port: u16, way: Way) -> f64 {
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                Namespace::enter(&world.container.0);
                while !done.load(Relaxed) {
                    let mut stream = connect(port, way);
                    // The port is free again at once.
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    stream.write_all(b"x").unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(SECONDS));
        done.store(true, Relaxed);
    });
    count.load(Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// A connection to the destination.
fn connect(port: u16, way: Way) -> TcpStream {
    if way == Way::Plain {
        return TcpStream::connect((DESTINATION, port)).unwrap();
    }
    let mut stream = TcpStream::connect((UPSTREAM, 1080)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    let request = [&[5, 1, 0, 1][..], &DESTINATION.octets(), &port.to_be_bytes()].concat();
    stream.write_all(&request).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    stream
}

impl World {
    fn start_iperf(&self) -> upstreams::Program {
        let port = IPERF.to_string();
        let address = DESTINATION.to_string();
        let mut command = self.outside.command("iperf3");
        command.args(["-s", "-B", &address, "-p", &port]).stdout(Stdio::null());
        let program = upstreams::Program::spawn(command);
        self.wait_listening(SocketAddrV4::new(DESTINATION, IPERF));
        program
    }

    fn start_redsocks(&self) -> upstreams::Program {
        let settings = self.folder.path().join("redsocks.conf");
        std::fs::write(
            &settings,
            format!(
                "base {{ log_debug = off; log_info = off; log = stderr; daemon = off; redirector = iptables; }}\n\
                 redsocks {{ local_ip = 10.88.0.1; local_port = {REDSOCKS}; ip = 198.51.100.2; port = 1080; type = socks5; \
                 listenq = 4096; }}\n"
            ),
        )
        .unwrap();
        let mut command = self.server.command("redsocks");
        command.arg("-c").arg(settings).stdout(Stdio::null()).stderr(Stdio::null());
        let program = upstreams::Program::spawn(command);
        wait_for("redsocks", || self.server.run("ss -Hltn").contains(&REDSOCKS.to_string()).then_some(()));
        program
    }

    fn route_directly(&self) {
        self.server.run("nft flush chain ip relay prerouting");
        self.server.run("sysctl -qw net.ipv4.ip_forward=1");
        self.outside.run("ip route add 10.88.0.0/24 via 198.51.100.1");
    }

    fn route_to_the_proxy(&self) {
        self.server.run("sysctl -qw net.ipv4.ip_forward=0");
        self.direct_to_listeners();
    }

    fn route_to_redsocks(&self) {
        self.server.run("nft flush chain ip relay prerouting");
        self.server.run("nft add chain ip relay peer { type nat hook prerouting priority dstnat; }");
        self.server.run(&format!("nft add rule ip relay peer iifname toc meta l4proto tcp redirect to :{REDSOCKS}"));
    }

    /// Gbit/s as the receiver saw them.
    fn iperf(&self, way: Way, more: &[&str]) -> f64 {
        let (address, port, seconds) = (DESTINATION.to_string(), IPERF.to_string(), SECONDS.to_string());
        let mut command = match way {
            Way::Plain => self.container.command("iperf3"),
            Way::Socks => {
                // It stands between the program and connect(2) alone: the bytes are not its business.
                let settings = self.folder.path().join("proxychains.conf");
                std::fs::write(&settings, format!("strict_chain\nquiet_mode\n[ProxyList]\nsocks5 {UPSTREAM} 1080\n"))
                    .unwrap();
                let mut command = self.container.command("proxychains4");
                command.arg("-q").arg("-f").arg(settings).arg("iperf3");
                command
            }
        };
        let output = command.args(["-c", &address, "-p", &port, "-t", &seconds, "-J"]).args(more).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let end = &text[text.rfind("\"sum_received\"").expect("a result")..];
        let value = end.split("\"bits_per_second\":").nth(1).unwrap().split([',', '}']).next().unwrap();
        value.trim().parse::<f64>().unwrap() / 1e9
    }

    /// Processor time that the proxy took so far.
    fn proxy_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.proxy_pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}
